//! The keys of customers: made with the first yes, kept in memory for a while, deleted at erasure.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use auspex_kernel::db::Db;
use auspex_kernel::{Clock, Random, Timestamp};
use parking_lot::Mutex;
use zeroize::Zeroizing;

use super::{Key, KeysError, MasterKeys, context};
use crate::ids::{CustomerRef, DialogueRef};
use crate::store;
use crate::store::keys::WrappedKey;
use crate::types::RowId;

/// Keys in memory: half of them those used last, half of them those before.
const CACHED_MAX: usize = 20_000;
/// Customers asked for in one statement.
const ASKED_AT_ONCE: usize = 500;

/// A customer's key, ready to be used.
#[derive(Debug)]
pub(crate) struct CustomerKey {
    pub(crate) id: [u8; 16],
    created_at: Timestamp,
    key: Key,
}

impl CustomerKey {
    /// Encrypts a text for its row.
    pub(crate) fn seal_text(
        &self,
        random: &Random,
        message: RowId,
        dialogue: DialogueRef,
        text: &str,
    ) -> Result<Vec<u8>, getrandom::Error> {
        let context = self.text_context(message, dialogue);
        self.key.seal(random, &context, text.as_bytes())
    }

    /// Decrypts the text of a row.
    pub(crate) fn open_text(
        &self,
        message: RowId,
        dialogue: DialogueRef,
        sealed: Vec<u8>,
    ) -> Option<Zeroizing<String>> {
        let opened = self
            .key
            .open(&self.text_context(message, dialogue), sealed)?;
        // Sealed from a text; without a copy that nobody would overwrite.
        String::from_utf8(opened.to_vec()).ok().map(Zeroizing::new)
    }

    /// Encrypts what belongs to a dialogue.
    pub(crate) fn seal_ids(
        &self,
        random: &Random,
        dialogue: DialogueRef,
        ids: &[u8],
    ) -> Result<Vec<u8>, getrandom::Error> {
        self.key.seal(random, &self.ids_context(dialogue), ids)
    }

    /// Decrypts what belongs to a dialogue.
    pub(crate) fn open_ids(
        &self,
        dialogue: DialogueRef,
        sealed: Vec<u8>,
    ) -> Option<Zeroizing<Vec<u8>>> {
        self.key.open(&self.ids_context(dialogue), sealed)
    }

    fn text_context(&self, message: RowId, dialogue: DialogueRef) -> [u8; 41] {
        let mut context = [0; 41];
        context[0] = b't';
        context[1..9].copy_from_slice(&message.0.to_be_bytes());
        context[9..25].copy_from_slice(dialogue.as_bytes());
        context[25..].copy_from_slice(&self.id);
        context
    }

    fn ids_context(&self, dialogue: DialogueRef) -> [u8; 33] {
        let mut context = [0; 33];
        context[0] = b'i';
        context[1..17].copy_from_slice(dialogue.as_bytes());
        context[17..].copy_from_slice(&self.id);
        context
    }
}

/// Finds and makes the keys of customers.
pub(crate) struct CustomerKeys {
    pub(crate) db: Db,
    master: MasterKeys,
    cache: Mutex<Cache>,
    clock: Clock,
    random: Random,
}

/// Those used last are in `young`. When that is full it becomes `old`, and what was there goes.
#[derive(Default)]
struct Cache {
    young: HashMap<CustomerRef, Arc<CustomerKey>>,
    old: HashMap<CustomerRef, Arc<CustomerKey>>,
}

impl Cache {
    fn get(&mut self, customer: CustomerRef) -> Option<Arc<CustomerKey>> {
        if let Some(key) = self.young.get(&customer) {
            return Some(Arc::clone(key));
        }
        let key = self.old.remove(&customer)?;
        self.insert(customer, Arc::clone(&key));
        Some(key)
    }

    fn insert(&mut self, customer: CustomerRef, key: Arc<CustomerKey>) {
        if self.young.len() >= CACHED_MAX / 2 {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(customer, key);
    }
}

impl CustomerKeys {
    pub(super) fn new(db: Db, master: MasterKeys, clock: Clock, random: Random) -> Self {
        Self {
            db,
            master,
            cache: Mutex::default(),
            clock,
            random,
        }
    }

    /// Forgets a customer's key in memory.
    pub(crate) fn forget(&self, customer: CustomerRef) {
        let mut cache = self.cache.lock();
        cache.young.remove(&customer);
        cache.old.remove(&customer);
    }

    /// The keys for dialogues, each by its customer and when it began, made where the customer has none;
    /// `None` where they were erased since.
    pub(crate) async fn get_or_create(
        &self,
        wanted: &[(CustomerRef, Timestamp)],
    ) -> Result<Vec<Option<Arc<CustomerKey>>>, KeysError> {
        let mut keys = HashMap::new();
        // An erasure since then would have deleted a key that is older than the dialogue. One
        // that comes after this look at it finds what is stored with the key.
        let mut doubtful = Vec::new();
        let mut missing = Vec::new();
        {
            let mut cache = self.cache.lock();
            for &(customer, began_at) in wanted {
                match cache.get(customer) {
                    Some(key) => {
                        if key.created_at >= began_at {
                            doubtful.push((customer, began_at));
                        }
                        keys.insert(customer, key);
                    }
                    None => {
                        doubtful.push((customer, began_at));
                        missing.push(customer);
                    }
                }
            }
        }
        missing.sort_unstable();
        missing.dedup();
        let erased = match (doubtful.is_empty(), missing.is_empty()) {
            (true, _) => HashMap::new(),
            (false, true) => {
                let look = self.db.read(async |connection| {
                    store::keys::last_erasures(connection, &doubtful).await
                });
                look.await?
            }
            (false, false) => {
                let (erased, made) = self.find_or_make(&missing, &doubtful).await?;
                for stored in made {
                    keys.insert(stored.customer, self.keep(stored)?);
                }
                erased
            }
        };
        let key = |&(customer, began_at): &(CustomerRef, Timestamp)| {
            let was_erased = erased.get(&customer).is_some_and(|at| *at >= began_at);
            keys.get(&customer).filter(|_| !was_erased).cloned()
        };
        Ok(wanted.iter().map(key).collect())
    }

    /// The last erasures of the customers of dialogues, and the keys of those that are not in memory,
    /// made where there is none and a dialogue began since.
    async fn find_or_make(
        &self,
        missing: &[CustomerRef],
        dialogues: &[(CustomerRef, Timestamp)],
    ) -> Result<(HashMap<CustomerRef, Timestamp>, Vec<WrappedKey>), KeysError> {
        let new = missing.iter().map(|customer| self.new_key(*customer));
        let new: Vec<_> = new.collect::<Result<_, _>>()?;
        let found = self.db.write(async |transaction| -> Result<_, KeysError> {
            for customer in missing {
                store::lock(transaction, *customer).await?;
            }
            let erased = store::keys::last_erasures(transaction, dialogues).await?;
            let found = store::keys::find_all(transaction, missing.iter().copied());
            let mut found = found.await?;
            let has_key: HashSet<_> = found.iter().map(|key| key.customer).collect();
            let is_wanted = |key: &&WrappedKey| {
                let began = dialogues.iter().filter(|(whose, _)| *whose == key.customer);
                let last = began.map(|(_, began_at)| *began_at).max();
                !has_key.contains(&key.customer) && last > erased.get(&key.customer).copied()
            };
            let made: Vec<_> = new.iter().filter(is_wanted).cloned().collect();
            store::keys::insert(transaction, made.clone()).await?;
            found.extend(made);
            Ok((erased, found))
        });
        found.await
    }

    /// The keys of some customers that have one.
    pub(crate) async fn get_all(
        &self,
        customers: impl Iterator<Item = CustomerRef>,
    ) -> Result<HashMap<CustomerRef, Arc<CustomerKey>>, KeysError> {
        let mut found = HashMap::new();
        let mut missing = Vec::new();
        {
            let mut cache = self.cache.lock();
            for customer in customers {
                if found.contains_key(&customer) {
                    continue;
                }
                match cache.get(customer) {
                    Some(key) => drop(found.insert(customer, key)),
                    None => missing.push(customer),
                }
            }
        }
        missing.sort_unstable();
        missing.dedup();
        for some in missing.chunks(ASKED_AT_ONCE) {
            let stored = self.db.read(async |connection| {
                store::keys::find_all(connection, some.iter().copied()).await
            });
            for stored in stored.await? {
                let customer = stored.customer;
                found.insert(customer, self.keep(stored)?);
            }
        }
        Ok(found)
    }

    fn new_key(&self, customer: CustomerRef) -> Result<WrappedKey, KeysError> {
        let id = self.random.bytes()?;
        let key = Key::random(&self.random)?;
        let wrapped = self
            .master
            .wrap(&self.random, &context(customer, &id), &key)?;
        Ok(WrappedKey {
            customer,
            id,
            master_id: wrapped.0.to_vec(),
            wrapped: wrapped.1,
            created_at: self.clock.now(),
        })
    }

    fn keep(&self, stored: WrappedKey) -> Result<Arc<CustomerKey>, KeysError> {
        let context = context(stored.customer, &stored.id);
        if !self.master.knows(&stored.master_id) {
            return Err(KeysError::UnknownMaster);
        }
        let key = self
            .master
            .unwrap(&stored.master_id, &context, stored.wrapped);
        let key = Arc::new(CustomerKey {
            id: stored.id,
            created_at: stored.created_at,
            key: key.ok_or(KeysError::Damaged)?,
        });
        self.cache.lock().insert(stored.customer, Arc::clone(&key));
        Ok(key)
    }

    /// Whether the databases answers and what it holds can be unwrapped.
    pub(crate) async fn is_well(&self) -> bool {
        let read = self
            .db
            .read(async |connection| store::keys::secret(connection, super::PSEUDONYMS).await);
        match read.await {
            Ok(Some((wrapped, id))) => self
                .master
                .unwrap(&id, super::PSEUDONYMS.as_bytes(), wrapped)
                .is_some(),
            _ => false,
        }
    }
}
