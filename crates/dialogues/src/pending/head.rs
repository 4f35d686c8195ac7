//! What is known of a dialogue in Redis beside its texts, and what becomes of it. Without Redis, so that it
//! can be seen whole.

use std::time::Duration;

use auspex_kernel::Timestamp;
use auspex_kernel::clock::Steady;
use serde::{Deserialize, Serialize};

use super::{Before, Limits, Look, Mark, NewText, Outcome, PushError, Pushed, State, Text};
use crate::ids::{CustomerId, CustomerRef, DialogId};
use crate::keys::SEAL_BYTES;
use crate::language::Language;

/// As in memory: how long a decided dialogue is remembered.
const DECIDED_KEPT: Duration = Duration::from_mins(1);
/// After this nobody decides any more: the replica that did has ended.
const DECIDING_MAX: Duration = Duration::from_mins(2);

// What things cost in Redis beside their own bytes, their encryption included.
const DIALOGUE_COST: usize = 1_024;
const TEXT_COST: usize = SEAL_BYTES + 32;
const MARK_COST: usize = 96;
const DECIDED_COST: usize = 768;

/// A dialogue without its texts.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Head {
    pub(super) dialogue: String,
    pub(super) customer: String,
    pub(super) customer_ref: [u8; 16],
    pub(super) began_at: i64,
    pub(super) language: String,
    pub(super) stage: Stage,
    /// By the clock that all replicas share.
    expires: i64,
    /// As it is told.
    expires_at: i64,
    /// How many texts there are, and how many there are or were before they were dropped.
    pub(super) texts: usize,
    pub(super) count: usize,
    /// When the last text came.
    last_at: i64,
    marks: Vec<([u8; 16], [u8; 16])>,
    /// What it costs, with its texts.
    pub(super) cost: usize,
}

/// Who decides, known by chance.
pub(super) type Holder = [u8; 16];

#[derive(Clone, Copy, Serialize, Deserialize)]
pub(super) enum Stage {
    Waiting(Before),
    Deciding {
        before: Before,
        holder: Holder,
        until: i64,
        is_dropped: bool,
    },
    Decided,
}

/// The time now: by the clock that all replicas share, and the date.
#[derive(Clone, Copy)]
pub(super) struct Now {
    pub(super) shared: Steady,
    pub(super) date: Timestamp,
}

/// What a change leaves.
pub(super) enum After {
    Here(Head),
    Gone,
}

impl Head {
    /// A dialogue that begins, without texts.
    pub(super) fn new(new: &NewText<'_>, customer: CustomerRef, now: Now) -> Self {
        let ids = new.dialogue.expose().len() + new.customer.expose().len();
        Self {
            dialogue: new.dialogue.expose().to_owned(),
            customer: new.customer.expose().to_owned(),
            customer_ref: *customer.as_bytes(),
            began_at: now.date.0,
            language: new.language.as_str().to_owned(),
            stage: Stage::Waiting(Before::Open),
            expires: now.shared.0,
            expires_at: now.date.0,
            texts: 0,
            count: 0,
            last_at: i64::MIN,
            marks: Vec::new(),
            cost: DIALOGUE_COST + 2 * ids,
        }
    }

    /// Adds a text; `None` where it was added before.
    pub(super) fn add(
        &mut self,
        new: &NewText<'_>,
        limits: &Limits,
        now: Now,
    ) -> Result<(Pushed, Option<Text>), PushError> {
        match self.stage {
            Stage::Decided => return Err(PushError::Decided),
            _ if self.customer != new.customer.expose() => return Err(PushError::OtherCustomer),
            Stage::Waiting(Before::Open) => {}
            Stage::Waiting(Before::Unsure) => return Err(PushError::Unsure),
            Stage::Waiting(Before::Refused) => return Err(PushError::Decided),
            Stage::Deciding { .. } => return Err(PushError::Deciding),
        }
        if let Some(Mark { key, body }) = new.mark
            && let Some((_, known)) = self.marks.iter().find(|(known, _)| *known == key)
        {
            return match *known == body {
                true => Ok((self.pushed(true), None)),
                false => Err(PushError::KeyReused),
            };
        }
        if self.count >= limits.texts_max {
            return Err(PushError::TooManyTexts(limits.texts_max));
        }
        let received_at = now.date.max(Timestamp(self.last_at.saturating_add(1)));
        let text = Text::new(new.text, new.language, received_at);
        self.last_at = received_at.0;
        self.cost += TEXT_COST + text.bytes() + new.mark.map_or(0, |_| MARK_COST);
        self.texts += 1;
        self.count += 1;
        self.marks
            .extend(new.mark.map(|mark| (mark.key, mark.body)));
        self.expires = (now.shared + limits.expiry).0;
        self.expires_at = (now.date + limits.expiry).0;
        Ok((self.pushed(false), Some(text)))
    }

    fn pushed(&self, is_repeated: bool) -> Pushed {
        Pushed {
            expires_at: Timestamp(self.expires_at),
            is_repeated,
        }
    }

    /// As it is by now: what has expired is gone, and a decision whose replica has ended is not known of.
    pub(super) fn by(self, now: Now) -> After {
        match self.stage {
            Stage::Deciding { until, holder, .. } if until <= now.shared.0 => {
                match self.settled(holder, Outcome::Unsure, now) {
                    Some(After::Here(head)) => head.by(now),
                    _ => After::Gone,
                }
            }
            Stage::Deciding { .. } => After::Here(self),
            Stage::Waiting(_) | Stage::Decided if self.expires <= now.shared.0 => After::Gone,
            Stage::Waiting(_) | Stage::Decided => After::Here(self),
        }
    }

    pub(super) fn look(&self) -> Option<Look> {
        Some(Look {
            state: match self.stage {
                Stage::Decided => return None,
                Stage::Deciding { .. } => State::Deciding,
                Stage::Waiting(Before::Open) => State::Open,
                Stage::Waiting(Before::Unsure) => State::Unsure,
                Stage::Waiting(Before::Refused) => State::Refused,
            },
            texts: self.count,
            expires_at: Timestamp(self.expires_at),
        })
    }

    /// Held by somebody who decides it.
    pub(super) fn held(mut self, before: Before, holder: Holder, now: Now) -> Self {
        self.stage = Stage::Deciding {
            before,
            holder,
            until: (now.shared + DECIDING_MAX).0,
            is_dropped: false,
        };
        self
    }

    /// Whether this one decides it.
    pub(super) fn is_held_by(&self, who: Holder) -> bool {
        matches!(self.stage, Stage::Deciding { holder, .. } if holder == who)
    }

    /// After a decision; `None` if it was not this one's.
    pub(super) fn settled(mut self, who: Holder, outcome: Outcome, now: Now) -> Option<After> {
        let Stage::Deciding {
            before,
            holder,
            is_dropped,
            ..
        } = self.stage
        else {
            return None;
        };
        if holder != who {
            return None;
        }
        let after = match outcome {
            Outcome::Decided => {
                self.empty();
                self.stage = Stage::Decided;
                self.expires = (now.shared + DECIDED_KEPT).0;
                self.cost = DECIDED_COST;
                return Some(After::Here(self));
            }
            Outcome::Gone => return Some(After::Gone),
            _ if is_dropped => return Some(After::Gone),
            // What has lost its texts can only be refused.
            _ if self.texts < self.count => Before::Refused,
            Outcome::Back => before,
            Outcome::Unsure => Before::Unsure,
            Outcome::Refused => Before::Refused,
        };
        self.stage = Stage::Waiting(after);
        if after == Before::Refused {
            self.empty();
        }
        Some(After::Here(self))
    }

    /// After its customer was dropped; `None` if nothing changes.
    pub(super) fn dropped(mut self) -> Option<After> {
        match &mut self.stage {
            Stage::Deciding {
                is_dropped: true, ..
            } => None,
            Stage::Deciding { is_dropped, .. } => {
                *is_dropped = true;
                self.empty();
                Some(After::Here(self))
            }
            Stage::Waiting(_) | Stage::Decided => Some(After::Gone),
        }
    }

    /// Without texts.
    pub(super) fn empty(&mut self) {
        self.texts = 0;
        self.marks = Vec::new();
        self.cost = DIALOGUE_COST + 2 * (self.dialogue.len() + self.customer.len());
    }

    /// When something is to be done about it without anybody asking.
    pub(super) fn due(&self) -> i64 {
        match self.stage {
            Stage::Deciding { until, .. } => until,
            Stage::Waiting(_) | Stage::Decided => self.expires,
        }
    }

    pub(super) fn customer_ref(&self) -> CustomerRef {
        CustomerRef::from_bytes(&self.customer_ref).expect("16 bytes")
    }

    /// Its ids and language, which were read from a request once.
    pub(super) fn ids(&self) -> Option<(DialogId, CustomerId, Language)> {
        Some((
            DialogId::parse(&self.dialogue).ok()?,
            CustomerId::parse(&self.customer).ok()?,
            Language::canonical(&self.language),
        ))
    }
}

/// Its ids are overwritten; they may be names.
impl Drop for Head {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.dialogue);
        zeroize::Zeroize::zeroize(&mut self.customer);
    }
}
