//! Messages of gRPC as they are framed: a byte of flags, four of length, and the message.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

const HEAD_BYTES: usize = 5;

/// Why bytes are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unframed {
    /// Nobody asked for one.
    Compressed,
    TooLong,
    /// The stream ended within one.
    CutOff,
}

/// A message in its frame.
pub(super) fn framed(message: &[u8]) -> Option<Bytes> {
    let length = u32::try_from(message.len()).ok()?;
    let mut frame = BytesMut::with_capacity(HEAD_BYTES + message.len());
    frame.put_u8(0);
    frame.put_u32(length);
    frame.put_slice(message);
    Some(frame.freeze())
}

/// Takes messages out of what comes in pieces.
#[derive(Debug)]
pub(super) struct Frames {
    buffer: BytesMut,
    bytes_max: usize,
}

impl Frames {
    /// `bytes_max` is of one message.
    pub(super) fn new(bytes_max: usize) -> Self {
        Self {
            buffer: BytesMut::new(),
            bytes_max,
        }
    }

    pub(super) fn push(&mut self, piece: &[u8]) {
        self.buffer.extend_from_slice(piece);
    }

    /// The next message that is there.
    ///
    /// # Errors
    /// [`Unframed`]: there will be none.
    pub(super) fn next(&mut self) -> Result<Option<Bytes>, Unframed> {
        let Some(head) = self.buffer.first_chunk::<HEAD_BYTES>() else {
            return Ok(None);
        };
        if head[0] != 0 {
            return Err(Unframed::Compressed);
        }
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        if length > self.bytes_max {
            return Err(Unframed::TooLong);
        }
        if self.buffer.len() < HEAD_BYTES + length {
            return Ok(None);
        }
        self.buffer.advance(HEAD_BYTES);
        Ok(Some(self.buffer.split_to(length).freeze()))
    }

    /// # Errors
    /// A message has begun.
    pub(super) fn end(&self) -> Result<(), Unframed> {
        match self.buffer.is_empty() {
            true => Ok(()),
            false => Err(Unframed::CutOff),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_no_message_is_refused() {
        let next = |bytes: &[u8]| {
            let mut frames = Frames::new(3);
            frames.push(bytes);
            frames.next()
        };
        assert_eq!(next(&[0, 0, 0, 0]), Ok(None));
        assert_eq!(next(&[0, 0, 0, 0, 0]), Ok(Some(Bytes::new())));
        assert_eq!(next(&[0, 0, 0, 0, 3, 1, 2]), Ok(None));
        assert_eq!(next(&[1, 0, 0, 0, 0]), Err(Unframed::Compressed));
        assert_eq!(next(&[0, 0, 0, 0, 4]), Err(Unframed::TooLong));
        assert_eq!(next(&[0, 255, 255, 255, 255]), Err(Unframed::TooLong));
        let mut frames = Frames::new(3);
        assert_eq!(frames.end(), Ok(()));
        frames.push(&[0]);
        assert_eq!(frames.end(), Err(Unframed::CutOff));
    }

    proptest! {
        #[test]
        fn messages_are_the_same_however_they_are_cut(
            messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 0..5),
            cut in 1_usize..10,
        ) {
            let whole: Vec<u8> = messages.iter().flat_map(|one| framed(one).expect("short")).collect();
            let (mut frames, mut found) = (Frames::new(20), Vec::new());
            for piece in whole.chunks(cut) {
                frames.push(piece);
                while let Some(message) = frames.next().expect("framed") {
                    found.push(message.to_vec());
                }
            }
            prop_assert_eq!(found, messages);
            prop_assert_eq!(frames.end(), Ok(()));
        }
    }
}
