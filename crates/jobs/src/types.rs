//! What a job is.

use auspex_kernel::Timestamp;
use auspex_kernel::id::JobId;
use auspex_kernel::predict::{Pinned, Predicted};
use csv::StringRecord;

use crate::table;

/// How far a job has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Its input is on its way; nobody sees it yet.
    Receiving,
    /// No chunk of it was begun.
    Queued,
    /// Some were.
    Running,
    /// All rows have their answer.
    Succeeded,
    /// A chunk failed too often: the job is dead until somebody runs it again.
    Failed,
    /// Somebody has called it off.
    Cancelled,
}

impl Status {
    /// Those that are shown.
    pub const SHOWN: &[Self] = &[
        Self::Queued,
        Self::Running,
        Self::Succeeded,
        Self::Failed,
        Self::Cancelled,
    ];

    /// As stored and shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Receiving => "receiving",
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut all = [Self::Receiving]
            .into_iter()
            .chain(Self::SHOWN.iter().copied());
        all.find(|status| status.as_str() == text)
    }

    /// Whether nothing happens to it by itself any more.
    pub fn has_ended(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }
}

/// How rows are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A JSON value in each line.
    Ndjson,
    /// RFC 4180, with a header.
    Csv,
}

impl Form {
    /// Both.
    pub const ALL: &[Self] = &[Self::Ndjson, Self::Csv];

    /// As stored and shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ndjson => "ndjson",
            Self::Csv => "csv",
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|form| form.as_str() == text)
    }
}

/// Why a job has failed, for whoever owns it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobError {
    /// For programs.
    pub code: String,
    /// For people.
    pub message: String,
}

/// How far the request is that tells of the end of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallbackState {
    /// The job has not ended.
    Waiting,
    /// It is to be sent.
    Due,
    /// It was answered with 2xx.
    Delivered,
    /// It was sent as often as the settings say.
    GivenUp,
}

impl CallbackState {
    const ALL: [Self; 4] = [Self::Waiting, Self::Due, Self::Delivered, Self::GivenUp];

    /// As stored and shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Due => "due",
            Self::Delivered => "delivered",
            Self::GivenUp => "given-up",
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }
}

/// Who is told of the end of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Callback {
    /// Where.
    pub url: String,
    /// How far that is.
    pub state: CallbackState,
    /// How often it was sent.
    pub attempts: u32,
}

/// A job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// Its name.
    pub id: JobId,
    /// Whose it is: the text of a [`Subject`](auspex_kernel::Subject).
    pub owner: String,
    /// What predicts its rows.
    pub pinned: Pinned,
    /// How its input was written.
    pub form: Form,
    /// How far it is.
    pub status: Status,
    /// Rows of its input.
    pub rows: u64,
    /// Those that have their answer.
    pub done: u64,
    /// Of these, those that were wrong.
    pub wrong: u64,
    /// When its input was complete.
    pub created_at: Timestamp,
    /// When its first chunk was begun.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// Why it failed.
    pub error: Option<JobError>,
    /// Who is told of its end.
    pub callback: Option<Callback>,
}

impl Job {
    /// Its position in lists, which are sorted by id.
    pub fn position(&self) -> String {
        self.id.to_string()
    }
}

/// A job that is submitted, without its input.
#[derive(Clone, Debug)]
pub struct NewJob {
    /// Whose it is.
    pub owner: String,
    /// What predicts its rows.
    pub pinned: Pinned,
    /// The header of CSV; none: JSON Lines.
    pub header: Option<StringRecord>,
    /// Who is told of its end.
    pub callback_url: Option<String>,
}

/// Some rows of the input of a job, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chunk {
    /// How many.
    pub rows: u64,
    /// The rows, each with the end of its line.
    pub text: Vec<u8>,
}

/// A chunk in its place.
#[derive(Debug)]
pub(crate) struct Placed {
    pub(crate) seq: i64,
    pub(crate) first_row: u64,
    pub(crate) rows: u64,
    pub(crate) content: Content,
}

/// What is known of a chunk.
#[derive(Debug)]
pub(crate) enum Content {
    /// Its rows.
    Input(Vec<u8>),
    /// What became of them.
    Result(ChunkResult),
}

impl Content {
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Input(text) => text.len(),
            Self::Result(result) => result.lines.len(),
        }
    }
}

/// A chunk that a worker has to itself for a while.
#[derive(Clone, Debug)]
pub struct Claim {
    /// Of which job.
    pub job: JobId,
    /// Which of its chunks.
    pub seq: i64,
    /// By this a worker shows that the chunk is still its own.
    pub fence: i64,
    /// How often it was tried, this time included.
    pub attempts: u32,
    /// The number of rows before it.
    pub first_row: u64,
    /// How many it has.
    pub rows: u64,
    /// What predicts it.
    pub pinned: Pinned,
    /// When its job was submitted.
    pub created_at: Timestamp,
    /// The header of CSV.
    pub header: Option<StringRecord>,
}

/// What a worker made of a chunk.
#[derive(Clone, Debug)]
pub struct ChunkResult {
    /// A line of JSON for each row.
    pub lines: Vec<u8>,
    /// Rows that were wrong.
    pub wrong: u64,
    /// How long the same is as CSV.
    pub csv_bytes: u64,
}

impl ChunkResult {
    /// Of the rows from this one on.
    pub(crate) fn of(predicted: Predicted, first_row: u64) -> Self {
        Self {
            csv_bytes: table::rows_bytes(&predicted.lines, first_row + 1),
            lines: predicted.lines,
            wrong: predicted.wrong,
        }
    }
}

/// Whose jobs a caller reaches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Their own.
    Own(String),
    /// Everybody's.
    All,
}

impl Reach {
    /// Whether these include those of `owner`.
    pub fn includes(&self, owner: &str) -> bool {
        match self {
            Self::Own(own) => own == owner,
            Self::All => true,
        }
    }
}

/// How many jobs are in a state, and since when the oldest of them exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateCount {
    /// The state.
    pub status: Status,
    /// How many.
    pub count: u64,
    /// When the oldest was submitted.
    pub oldest_at: Option<Timestamp>,
}
