//! The buffer and the databases together: texts from the first one to the decision, and what is done
//! for a customer, whose texts may be in either.
//!
//! Texts are added in the buffer alone. The databases are asked where a dialogue begins, whether it
//! is decided already, and where it is decided.

use auspex_kernel::audit::Actor;

use crate::Dialogues;
use crate::consent::Decided;
use crate::error::DialoguesError;
use crate::ids::{CustomerRef, DialogId};
use crate::pending::{
    Away, Before, Held, Look, NewText, Outcome, Pending as _, PushError, Pushed, State, Taken,
};
use crate::reading::HeldCounts;
use crate::types::{DecidedDialogue, Statement};

/// Why a text was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum IntakeError {
    /// The buffer refuses it.
    #[error(transparent)]
    Pending(#[from] PushError),
    /// Whether its dialogue is decided could not be found out.
    #[error(transparent)]
    Dialogues(#[from] DialoguesError),
}

/// How a dialogue stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It waits.
    Pending(Look),
    /// It is decided.
    Decided(DecidedDialogue),
}

/// How much is held of a customer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holdings {
    /// What is stored.
    pub stored: HeldCounts,
    /// Dialogues that wait for a decision.
    pub pending_dialogues: u64,
    /// Their texts.
    pub pending_texts: u64,
}

impl Dialogues {
    /// Adds a text to a dialogue that is in the buffer. It uses no database.
    ///
    /// # Errors
    /// [`PushError`]; after [`PushError::Unknown`] ask [`Self::begin`].
    pub async fn add(&self, new: NewText<'_>) -> Result<Pushed, PushError> {
        self.pending.push(new, None).await
    }

    /// Adds a text that may be the first one of its dialogue.
    ///
    /// # Errors
    /// [`IntakeError`].
    pub async fn begin(&self, new: NewText<'_>) -> Result<Pushed, IntakeError> {
        let pseudonyms = self.pseudonyms();
        let customer = pseudonyms.customer(new.customer);
        let decided = self.decided(pseudonyms.dialogue(new.dialogue));
        match decided.await? {
            Some(decided) if decided.customer != customer => Err(PushError::OtherCustomer.into()),
            Some(_) => Err(PushError::Decided.into()),
            // Whoever decides it meanwhile leaves a trace in the buffer.
            None => Ok(self.pending.push(new, Some(customer)).await?),
        }
    }

    /// How a dialogue stands; `None` where it was never begun, has expired or was erased.
    ///
    /// # Errors
    /// [`DialoguesError::Database`].
    pub async fn standing(&self, dialogue: &DialogId) -> Result<Option<Standing>, DialoguesError> {
        let look = self.pending.look(dialogue).await;
        if let Ok(Some(look)) = look
            && look.state != State::Unsure
        {
            return Ok(Some(Standing::Pending(look)));
        }
        let reference = self.pseudonyms().dialogue(dialogue);
        match self.decided(reference).await? {
            Some(decided) => Ok(Some(Standing::Decided(decided))),
            None => Ok(look?.map(Standing::Pending)),
        }
    }

    /// Records what the customer decided. A yes that is answered is durable, with all texts; after a
    /// no the texts are gone, whatever else happens.
    ///
    /// # Errors
    /// [`DialoguesError`].
    pub async fn decide(
        &self,
        dialogue: &DialogId,
        consent: bool,
        statement: &Statement,
    ) -> Result<Decided, DialoguesError> {
        let reference = self.pseudonyms().dialogue(dialogue);
        let again = self.answer_again(reference, consent, statement);
        let held = match self.pending.take(dialogue).await {
            Taken::Held(held) => held,
            Taken::Busy => return Err(DialoguesError::Busy),
            Taken::Unknown => return again.await,
            // What is decided does not wait any more.
            Taken::Away if self.decided(reference).await?.is_some() => return again.await,
            Taken::Away => return Err(Away.into()),
        };
        match (held.before(), consent) {
            (Before::Refused, true) => {
                held.settle(Outcome::Back).await;
                Err(DialoguesError::NoWayBack)
            }
            (Before::Unsure, _) if self.decided(reference).await?.is_some() => {
                held.settle(Outcome::Decided).await;
                again.await
            }
            (_, true) => self.keep(held, statement).await,
            (_, false) => self.drop_and_refuse(held, statement).await,
        }
    }

    async fn keep(
        &self,
        held: impl Held,
        statement: &Statement,
    ) -> Result<Decided, DialoguesError> {
        let kept = self.grant(held.dialogue(), statement).await;
        let outcome = match &kept {
            Ok(_) | Err(DialoguesError::NoWayBack | DialoguesError::OtherCustomer) => {
                Outcome::Decided
            }
            // The customer was erased.
            Err(DialoguesError::Unknown) => Outcome::Gone,
            Err(error) if error.is_unsure() => Outcome::Unsure,
            Err(_) => Outcome::Back,
        };
        held.settle(outcome).await;
        kept
    }

    async fn drop_and_refuse(
        &self,
        mut held: impl Held,
        statement: &Statement,
    ) -> Result<Decided, DialoguesError> {
        held.drop_texts().await?;
        let refused = self.refuse(held.dialogue(), statement).await;
        let outcome = match &refused {
            Ok(_) | Err(DialoguesError::OtherCustomer) => Outcome::Decided,
            Err(_) => Outcome::Refused,
        };
        held.settle(outcome).await;
        refused
    }

    /// How much is held of a customer.
    ///
    /// # Errors
    /// [`DialoguesError::Database`].
    pub async fn holdings(
        &self,
        actor: &Actor,
        customer: CustomerRef,
    ) -> Result<Holdings, DialoguesError> {
        let stored = self.held(actor, customer).await?;
        let pending = self.pending.of_customer(customer).await?;
        Ok(Holdings {
            stored,
            pending_dialogues: pending.len() as u64,
            pending_texts: pending.iter().map(|one| one.texts.len() as u64).sum(),
        })
    }
}
