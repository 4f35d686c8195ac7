//! Instances that register themselves, and leave when they are not heard of for their time to live.
//!
//! Instances stand in the database, so that a restart of this server stops no traffic and every replica sees
//! them. What a heartbeat changes there is only when the instance was heard of last, and that is written once in a third of the time to live
//! at most. How long an instance lives is measured by each replica from the moment it saw it heard of: their wall clocks
//! need not agree. After a start every instance has its whole time once more, for it could not be heard meanwhile.

mod address;

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use auspex_kernel::audit::{self, Actor};
use auspex_kernel::clock::Steady;
use auspex_kernel::db::{Db, DbError, Transaction};
use auspex_kernel::redis::{Notices, Redis};
use auspex_kernel::{Clock, Random, Timestamp};
use parking_lot::Mutex;

pub(crate) use address::{USUAL, is_allowed, is_link_local};

use crate::audit::{Action, Event};
use crate::balance::{Service, Share};
use crate::live::Live;
use crate::source::{self, Source};
use crate::store;
use crate::upstream::Place;

/// Where replicas are told that an instance came or left.
const CHANNEL: &str = "gateway";
/// Of one service.
const INSTANCES_MAX: usize = 200;

/// A server as it registered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Instance {
    pub(crate) service: String,
    pub(crate) id: String,
    pub(crate) address: String,
    pub(crate) metadata: BTreeMap<String, String>,
    pub(crate) ttl: Duration,
    pub(crate) registered_at: Timestamp,
    pub(crate) seen_at: Timestamp,
}

/// What an instance says of itself.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) address: String,
    pub(crate) metadata: BTreeMap<String, String>,
    pub(crate) ttl: Duration,
}

/// Why an instance is not registered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RegistryError {
    #[error("there is no service of this name; add it to [gateway.services] without endpoints")]
    NoService,
    #[error("this is a part of Auspex; nobody can register as one")]
    Reserved,
    #[error("the settings say which servers this service has; instances cannot register")]
    NotRegistered,
    #[error("address {0}")]
    Address(&'static str),
    #[error("the service has {INSTANCES_MAX} instances already; remove some first")]
    TooMany,
    #[error("there is no such instance")]
    NoInstance,
    #[error(transparent)]
    Database(#[from] DbError),
}

/// The instances of all services.
pub(crate) struct Registry {
    db: Db,
    clock: Clock,
    random: Random,
    live: Arc<Live>,
    known: Mutex<Known>,
    /// Held by whoever changes both the database and what is known, so that the two agree.
    changing: tokio::sync::Mutex<()>,
    /// What tells other replicas of changes, if there are any.
    redis: OnceLock<Redis>,
}

type Known = BTreeMap<Name, Entry>;
/// Of a service and of one of its instances.
type Name = (String, String);

#[derive(Clone, Debug)]
struct Entry {
    instance: Instance,
    /// What the database says of when it was heard of.
    stored: Timestamp,
    until: Steady,
}

impl Registry {
    /// With what the database holds.
    pub(crate) async fn open(
        db: Db,
        clock: Clock,
        random: Random,
        live: Arc<Live>,
    ) -> Result<Self, DbError> {
        let registry = Self {
            db,
            clock,
            random,
            live,
            known: Mutex::default(),
            changing: tokio::sync::Mutex::default(),
            redis: OnceLock::new(),
        };
        registry.catch_up().await?;
        Ok(registry)
    }

    /// From now on other replicas are told of instances that come and leave. They would find them by themselves a
    /// little later.
    pub(crate) fn share(&self, redis: Redis) {
        let _ = self.redis.set(redis);
    }

    /// Hears what other replicas change.
    pub(crate) fn notices(&self) -> Notices {
        let redis = self.redis.get();
        redis.map_or_else(Notices::none, |redis| redis.listen(CHANNEL))
    }

    fn announce(&self) {
        if let Some(redis) = self.redis.get() {
            redis.announce(CHANNEL);
        }
    }

    /// Registers an instance, or hears of it again. Requests go to it when this returns; whether it is new.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub(crate) async fn hear(
        &self,
        actor: &Actor,
        (service, id): (&str, &str),
        told: Told,
    ) -> Result<(Instance, bool), RegistryError> {
        let source = self.service(service)?;
        source
            .authority_of(&told.address)
            .map_err(RegistryError::Address)?;
        let name: Name = (service.to_owned(), id.to_owned());
        if let Some(heard) = self.hear_again(&name, &told) {
            return Ok((heard, false));
        }
        let _changing = self.changing.lock().await;
        let now = self.clock.now();
        let old = self.known.lock().get(&name).cloned();
        let same = old
            .as_ref()
            .map(|old| &old.instance)
            .filter(|old| told.is_of(old));
        let is_change = same.is_none();
        if old.is_none() && self.of(service).len() >= INSTANCES_MAX {
            return Err(RegistryError::TooMany);
        }
        let instance = Instance {
            service: name.0.clone(),
            id: name.1.clone(),
            registered_at: same.map_or(now, |same| same.registered_at),
            address: told.address,
            metadata: told.metadata,
            ttl: told.ttl,
            seen_at: now,
        };
        let storing = self.db.write(async |transaction| {
            store::put(transaction, &instance).await?;
            if is_change {
                let event =
                    Event::new(Action::InstanceRegister, format!("instance:{service}/{id}"));
                self.record(transaction, actor, event).await?;
            }
            Ok::<_, DbError>(())
        });
        let stored = match (storing.await, &old) {
            (Ok(()), _) => now,
            // It lives on as long as this server can be asked, whatever becomes of the database.
            (Err(error), Some(old)) if !is_change => {
                tracing::debug!(%error, "a heartbeat was not stored");
                old.stored
            }
            (Err(error), _) => return Err(error.into()),
        };
        let entry = Entry {
            stored,
            until: self.clock.steady() + instance.ttl,
            instance: instance.clone(),
        };
        self.known.lock().insert(name, entry);
        self.publish(service);
        if is_change {
            self.announce();
        }
        Ok((instance, old.is_none()))
    }

    /// Hears of an instance that is the same as before and was stored not long ago.
    fn hear_again(&self, name: &Name, told: &Told) -> Option<Instance> {
        let now = self.clock.now();
        let mut known = self.known.lock();
        let entry = known
            .get_mut(name)
            .filter(|entry| told.is_of(&entry.instance))?;
        entry.instance.seen_at = now;
        entry.until = self.clock.steady() + told.ttl;
        let is_stored = now.since(entry.stored) < told.ttl / 3 && now >= entry.stored;
        is_stored.then(|| entry.instance.clone())
    }

    /// Removes an instance: no request goes to it any more.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub(crate) async fn remove(
        &self,
        actor: &Actor,
        service: &str,
        id: &str,
    ) -> Result<(), RegistryError> {
        self.service(service)?;
        let name = (service.to_owned(), id.to_owned());
        let _changing = self.changing.lock().await;
        if !self.known.lock().contains_key(&name) {
            return Err(RegistryError::NoInstance);
        }
        let removing = self.db.write(async |transaction| {
            store::delete(transaction, service, id).await?;
            let event = Event::new(Action::InstanceRemove, format!("instance:{service}/{id}"));
            self.record(transaction, actor, event).await
        });
        removing.await?;
        self.known.lock().remove(&name);
        self.publish(service);
        self.announce();
        Ok(())
    }

    /// The instances of a service, by their ids.
    pub(crate) fn of(&self, service: &str) -> Vec<Instance> {
        let known = self.known.lock();
        let entries = known
            .values()
            .filter(|entry| entry.instance.service == service);
        entries.map(|entry| entry.instance.clone()).collect()
    }

    /// Lets those leave that were not heard of in time. Their requests go elsewhere at once.
    pub(crate) async fn expire(&self) -> Result<(), DbError> {
        let now = self.clock.steady();
        let late = |entry: &Entry| entry.until <= now;
        if !self.known.lock().values().any(late) {
            return Ok(());
        }
        let _changing = self.changing.lock().await;
        let gone: Vec<Entry> = {
            let mut known = self.known.lock();
            let gone = known
                .values()
                .filter(|entry| late(entry))
                .cloned()
                .collect();
            known.retain(|_, entry| !late(entry));
            gone
        };
        for Entry { instance, .. } in &gone {
            let (service, instance_id) = (instance.service.as_str(), instance.id.as_str());
            tracing::warn!(
                service,
                instance.id = instance_id,
                "an instance was not heard of in time and leaves"
            );
            self.publish(service);
        }
        let deleting = self.db.write(async |transaction| {
            for Entry {
                instance, stored, ..
            } in &gone
            {
                store::delete_unheard(transaction, &instance.service, &instance.id, *stored)
                    .await?;
            }
            Ok::<_, DbError>(())
        });
        deleting.await
    }

    /// Takes over what other processes changed.
    pub(crate) async fn catch_up(&self) -> Result<(), DbError> {
        let _changing = self.changing.lock().await;
        let rows = self
            .db
            .read(async |connection| store::all(connection).await)
            .await?;
        let now = self.clock.steady();
        let mut known = self.known.lock();
        let mut old = std::mem::take(&mut *known);
        for row in rows {
            let name = (row.service.clone(), row.id.clone());
            let entry = match old.remove(&name) {
                Some(same) if same.is_stored_as(&row) => same,
                // It was heard of elsewhere.
                _ => Entry {
                    stored: row.seen_at,
                    until: now + row.ttl,
                    instance: row,
                },
            };
            known.insert(name, entry);
        }
        drop(known);
        self.publish_all();
        Ok(())
    }

    /// Hands every service its instances: for services that are new.
    pub(crate) fn publish_all(&self) {
        for service in self.live.now().services.values() {
            self.publish_to(service);
        }
    }

    fn publish(&self, service: &str) {
        if let Some(service) = self.live.now().services.get(service) {
            self.publish_to(service);
        }
    }

    fn publish_to(&self, service: &Service) {
        let source = &service.plan.source;
        if !matches!(source, Source::Registry(..)) {
            return;
        }
        // Held meanwhile, so that what is older is not published later.
        let known = self.known.lock();
        let entries = known.values();
        let own = entries.filter(|entry| entry.instance.service == service.plan.name);
        // The ranges may have changed since.
        let mut places: Vec<Place> = own
            .filter_map(|entry| source.authority_of(&entry.instance.address).ok())
            .map(Place::named)
            .collect();
        places.sort_unstable();
        places.dedup();
        let usual = |place| (place, Share::default());
        service.set(&places.into_iter().map(usual).collect::<Vec<_>>());
    }

    /// Where the instances of a service come from, if it is one that takes them.
    fn service(&self, name: &str) -> Result<Source, RegistryError> {
        if source::is_reserved(name) {
            return Err(RegistryError::Reserved);
        }
        let gateway = self.live.now();
        let service = gateway.services.get(name).ok_or(RegistryError::NoService)?;
        match &service.plan.source {
            source @ Source::Registry(..) => Ok(source.clone()),
            Source::Fixed(_) | Source::Dns(_) | Source::Srv(_) => Err(RegistryError::NotRegistered),
        }
    }

    async fn record(
        &self,
        transaction: &Transaction,
        actor: &Actor,
        event: Event,
    ) -> Result<(), DbError> {
        audit::record(transaction, actor, event, &self.clock, &self.random).await
    }
}

impl Entry {
    fn is_stored_as(&self, row: &Instance) -> bool {
        let mut stored = self.instance.clone();
        stored.seen_at = self.stored;
        stored == *row
    }
}

impl Told {
    /// Whether it tells nothing new of an instance.
    fn is_of(&self, instance: &Instance) -> bool {
        self.address == instance.address
            && self.metadata == instance.metadata
            && self.ttl == instance.ttl
    }
}

#[cfg(test)]
mod tests;
