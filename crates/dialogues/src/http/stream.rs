//! Answers that are written while they are read: block by block through a short channel, so that a
//! reader who stalls keeps neither the database nor much memory busy.

use auspex_kernel::http::csv_cell;
use axum::body::Body;
use bytes::Bytes;
use futures_util::stream::unfold;
use tokio::sync::mpsc;

use super::messages::MessageView;
use crate::error::DialoguesError;
use crate::reading::MessageStream;
use crate::types::Message;

/// Blocks that are written ahead of the reader.
const BLOCKS_AHEAD: usize = 1;

/// How texts are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Json,
    Csv,
    Ndjson,
}

impl Form {
    pub(super) const ALL: &[Self] = &[Self::Json, Self::Csv, Self::Ndjson];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Csv => "csv",
            Self::Ndjson => "ndjson",
        }
    }
}

/// Where the blocks of an answer go. A block that is an error breaks the answer off, which its reader
/// notices: it does not end as it should.
pub(super) type Blocks = mpsc::Sender<Result<Bytes, DialoguesError>>;

/// The body that is fed by the blocks.
pub(super) fn body() -> (Blocks, Body) {
    let (blocks, written) = mpsc::channel(BLOCKS_AHEAD);
    let read = unfold(written, async |mut written: mpsc::Receiver<_>| {
        written.recv().await.map(|block| (block, written))
    });
    (blocks, Body::from_stream(read))
}

/// All of these texts. Where the first ones cannot be read, it is an error and no answer.
///
/// # Errors
/// As of [`MessageStream::next`].
pub(super) async fn messages(
    mut messages: MessageStream,
    form: Form,
) -> Result<Body, DialoguesError> {
    let mut next = messages.next().await?;
    let (blocks, body) = body();
    tokio::spawn(async move {
        let mut is_first = true;
        while let Some(some) = next {
            let block = written(form, is_first, some);
            // The reader may have gone.
            if blocks.send(Ok(block)).await.is_err() {
                return;
            }
            is_first = false;
            next = match messages.next().await {
                Ok(next) => next,
                Err(error) => return break_off(&blocks, error).await,
            };
        }
        if is_first {
            let _ = blocks.send(Ok(written(form, true, Vec::new()))).await;
        }
    });
    Ok(body)
}

/// Ends an answer before its end.
pub(super) async fn break_off(blocks: &Blocks, error: DialoguesError) {
    tracing::error!(%error, "an export was broken off");
    let _ = blocks.send(Err(error)).await;
}

/// Texts as they are written, with what comes before the first ones.
fn written(form: Form, is_first: bool, messages: Vec<Message>) -> Bytes {
    let views = messages.into_iter().map(MessageView::from);
    // All of it is text, and goes to memory.
    if form == Form::Csv {
        let mut writer = csv::WriterBuilder::new()
            .terminator(csv::Terminator::CRLF)
            .from_writer(Vec::new());
        if is_first {
            let _ = writer.write_record(MessageView::COLUMNS);
        }
        for view in views {
            let cells = view.cells().map(csv_cell);
            let _ = writer.write_record(cells.iter().map(|cell| cell.as_bytes()));
        }
        return writer.into_inner().unwrap_or_default().into();
    }
    let mut lines = Vec::new();
    for view in views {
        let _ = serde_json::to_writer(&mut lines, &view);
        lines.push(b'\n');
    }
    lines.into()
}
