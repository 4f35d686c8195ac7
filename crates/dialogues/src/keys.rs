//! Keys: what stands encrypted in the database, and what makes that unreadable for good.
//!
//! A master key wraps a key per customer and the key of the pseudonyms; a customer's key encrypts
//! their texts and ids. The wrapped keys are in a database of their own, so that erasing one
//! reaches into every backup of the texts.

mod crypt;
mod master;

pub(crate) use master::MasterKeys;
