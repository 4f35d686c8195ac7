//! The result of a job, read from any byte on without holding more than a chunk of it.

use std::ops::Range;

use auspex_kernel::id::JobId;
use bytes::Bytes;

use crate::error::JobsError;
use crate::store::results::{self, Size};
use crate::types::{Form, Job, Reach, Status};
use crate::{Jobs, table};

/// The result of a job that has succeeded.
#[derive(Debug)]
pub struct Outcome {
    jobs: Jobs,
    id: JobId,
    form: Form,
    sizes: Vec<Size>,
}

impl Jobs {
    /// The result of a job in this form; none: in that of its input.
    ///
    /// # Errors
    /// [`JobsError::Unknown`], [`JobsError::NoResult`], [`JobsError::Database`].
    pub async fn outcome(
        &self,
        reach: &Reach,
        id: &JobId,
        form: Option<Form>,
    ) -> Result<(Job, Outcome), JobsError> {
        let job = self.get(reach, id).await?;
        if job.status != Status::Succeeded {
            return Err(JobsError::NoResult(job.status.as_str()));
        }
        let sizes = self
            .core
            .db
            .read(async |connection| results::sizes(connection, id).await);
        let outcome = Outcome {
            jobs: self.clone(),
            id: id.clone(),
            form: form.unwrap_or(job.form),
            sizes: sizes.await?,
        };
        Ok((job, outcome))
    }
}

impl Outcome {
    /// How it is written.
    pub fn form(&self) -> Form {
        self.form
    }

    /// How long it is.
    pub fn bytes(&self) -> u64 {
        let chunks = self.sizes.iter().map(|size| self.bytes_of(size));
        chunks.fold(self.head().len() as u64, u64::saturating_add)
    }

    fn head(&self) -> &'static [u8] {
        match self.form {
            Form::Ndjson => b"",
            Form::Csv => table::HEADER,
        }
    }

    fn bytes_of(&self, size: &Size) -> u64 {
        match self.form {
            Form::Ndjson => size.ndjson_bytes,
            Form::Csv => size.csv_bytes,
        }
    }

    /// These bytes of it.
    pub fn read(self, range: Range<u64>) -> Reading {
        Reading {
            outcome: self,
            range,
            at: 0,
            place: 0,
        }
    }

    /// The head of the result, and then what came of its chunks; `None`: there is nothing more.
    async fn piece(&self, place: usize) -> Result<Option<Bytes>, JobsError> {
        let Some(index) = place.checked_sub(1) else {
            return Ok(Some(Bytes::from_static(self.head())));
        };
        let Some(size) = self.sizes.get(index) else {
            return Ok(None);
        };
        let db = &self.jobs.core.db;
        let lines = db
            .read(async |connection| results::lines(connection, &self.id, size.seq).await)
            .await?;
        let lines = lines.ok_or(JobsError::Unknown)?;
        Ok(Some(match self.form {
            Form::Ndjson => lines.into(),
            Form::Csv => table::rows(&lines, size.first_row + 1).into(),
        }))
    }

    fn bytes_at(&self, place: usize) -> u64 {
        match place.checked_sub(1).and_then(|index| self.sizes.get(index)) {
            Some(size) => self.bytes_of(size),
            None => self.head().len() as u64,
        }
    }
}

/// Bytes of a result that are being read, a chunk of the job at a time.
#[derive(Debug)]
pub struct Reading {
    outcome: Outcome,
    range: Range<u64>,
    /// Where the next piece begins.
    at: u64,
    /// Which it is.
    place: usize,
}

impl Reading {
    /// The next of these bytes; `None` after the last.
    ///
    /// # Errors
    /// [`JobsError::Unknown`] if the job was deleted meanwhile, [`JobsError::Database`].
    pub async fn next(&mut self) -> Result<Option<Bytes>, JobsError> {
        while self.at < self.range.end {
            let (begin, place) = (self.at, self.place);
            self.at += self.outcome.bytes_at(place);
            self.place += 1;
            if self.at <= self.range.start && place <= self.outcome.sizes.len() {
                continue;
            }
            let Some(piece) = self.outcome.piece(place).await? else {
                return Ok(None);
            };
            if let Some(wanted) = cut(piece, begin, &self.range) {
                return Ok(Some(wanted));
            }
        }
        Ok(None)
    }
}

/// What of `bytes`, which begin at `begin`, is in the range.
fn cut(bytes: Bytes, begin: u64, range: &Range<u64>) -> Option<Bytes> {
    let end = begin + bytes.len() as u64;
    let (from, to) = (range.start.max(begin), range.end.min(end));
    // Both lie within the bytes.
    (from < to).then(|| bytes.slice((from - begin) as usize..(to - begin) as usize))
}
