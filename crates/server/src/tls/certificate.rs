//! When a certificate ends: the one thing that is read of it here (RFC 5280 §4.1). All else is rustls's.

use auspex_kernel::Timestamp;
use rustls::sign::CertifiedKey;

const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// When the first certificate of a chain ends.
pub(super) fn end_of(key: &CertifiedKey) -> Option<Timestamp> {
    not_after(key.cert.first()?)
}

fn not_after(certificate: &[u8]) -> Option<Timestamp> {
    let (certificate, _) = sequence(certificate)?;
    let (mut fields, _) = sequence(certificate)?;
    if fields.first() == Some(&VERSION) {
        (_, _, fields) = element(fields)?;
    }
    // Serial number, algorithm, issuer.
    for _ in 0..3 {
        (_, _, fields) = element(fields)?;
    }
    let (validity, _) = sequence(fields)?;
    let (_, _, validity) = element(validity)?;
    let (tag, text, _) = element(validity)?;
    time(tag, std::str::from_utf8(text).ok()?)
}

fn sequence(input: &[u8]) -> Option<(&[u8], &[u8])> {
    let (tag, content, rest) = element(input)?;
    (tag == SEQUENCE).then_some((content, rest))
}

/// Tag, content and what follows. Lengths are definite in DER.
fn element(input: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[tag, short], rest) = input.split_first_chunk::<2>()?;
    let (length, rest) = match short {
        0..=0x7f => (usize::from(short), rest),
        0x81..=0x84 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(short & 0x7f))?;
            let length = bytes
                .iter()
                .fold(0, |sum, byte| sum << 8 | usize::from(*byte));
            (length, rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

/// Both forms have seconds and are in UTC.
fn time(tag: u8, text: &str) -> Option<Timestamp> {
    let (century, rest) = match tag {
        UTC_TIME if text.get(..1)? < "5" => ("20", text),
        UTC_TIME => ("19", text),
        GENERALIZED_TIME => (text.get(..2)?, text.get(2..)?),
        _ => return None,
    };
    let digits = rest.strip_suffix('Z')?;
    if digits.len() != 12 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let two = |at: usize| &digits[at..at + 2];
    let [year, month, day, hour, minute, second] = [0, 2, 4, 6, 8, 10].map(two);
    let date = format!("{century}{year}-{month}-{day}T{hour}:{minute}:{second}Z");
    Timestamp::parse_rfc3339(&date)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn der(tag: u8, content: &[u8]) -> Vec<u8> {
        let length = content.len();
        let mut bytes = vec![tag];
        match length {
            0..=127 => bytes.push(length as u8),
            _ => bytes.extend([0x82, (length >> 8) as u8, length as u8]),
        }
        bytes.extend_from_slice(content);
        bytes
    }

    fn certificate(version: bool, tag: u8, end: &str) -> Vec<u8> {
        let validity = [der(UTC_TIME, b"200101000000Z"), der(tag, end.as_bytes())].concat();
        let mut fields = if version {
            der(VERSION, &[2, 1, 2])
        } else {
            Vec::new()
        };
        fields.extend(der(2, &[1; 20]));
        fields.extend(der(SEQUENCE, &[]));
        fields.extend(der(SEQUENCE, &[0; 300]));
        fields.extend(der(SEQUENCE, &validity));
        fields.extend([0; 50]);
        der(SEQUENCE, &der(SEQUENCE, &fields))
    }

    fn end(tag: u8, text: &str) -> Option<String> {
        not_after(&certificate(true, tag, text)).map(Timestamp::to_rfc3339)
    }

    #[test]
    fn both_forms_of_dates_are_read() {
        for (tag, text, date) in [
            (UTC_TIME, "300228235959Z", "2030-02-28T23:59:59Z"),
            (UTC_TIME, "491231000000Z", "2049-12-31T00:00:00Z"),
            (UTC_TIME, "500101000000Z", "1950-01-01T00:00:00Z"),
            (GENERALIZED_TIME, "20500101000000Z", "2050-01-01T00:00:00Z"),
            (GENERALIZED_TIME, "99991231235959Z", "9999-12-31T23:59:59Z"),
        ] {
            let read = end(tag, text).expect("a date");
            assert!(
                read.starts_with(date.trim_end_matches('Z')),
                "{text}: {read}"
            );
        }
        let first_version = certificate(false, UTC_TIME, "300228235959Z");
        assert!(not_after(&first_version).is_some());
    }

    #[test]
    fn what_is_no_date_is_none() {
        for (tag, text) in [
            (UTC_TIME, ""),
            (UTC_TIME, "3002282359Z"),
            (UTC_TIME, "300228235959"),
            (UTC_TIME, "300228235959+0100"),
            (UTC_TIME, "301328235959Z"),
            (UTC_TIME, "é0228235959Z"),
            (GENERALIZED_TIME, "é500101000000Z"),
            (GENERALIZED_TIME, "20500101000000.5Z"),
            (4, "300228235959Z"),
        ] {
            assert_eq!(end(tag, text), None, "{text}");
        }
    }

    #[test]
    fn no_damage_is_a_panic() {
        let whole = certificate(true, UTC_TIME, "300228235959Z");
        for length in 0..whole.len() {
            let _ = not_after(&whole[..length]);
        }
        for at in 0..whole.len() {
            for byte in [0, 1, 0x7f, 0x80, 0x81, 0x84, 0x85, 0xff] {
                let mut damaged = whole.clone();
                damaged[at] = byte;
                let _ = not_after(&damaged);
            }
        }
    }
}
