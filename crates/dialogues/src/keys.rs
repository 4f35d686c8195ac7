//! Keys: what stands encrypted in the database, and what makes that unreadable for good.
//!
//! A master key wraps a key per customer and the key of the pseudonyms; a customer's key encrypts
//! their texts and ids. The wrapped keys are in a database of their own, so that erasing one
//! reaches into every backup of the texts.

mod crypt;
mod customer;
mod master;

use std::path::{Path, PathBuf};

use auspex_kernel::apart::id_of;
use auspex_kernel::db::{Connection, Db, DbError};
use auspex_kernel::files::{Obstacle, narrow};
use auspex_kernel::{Clock, Random, secrets};

use crate::config::Config;
use crate::ids::{CustomerRef, Pseudonyms};
use crate::store::keys as store;

pub(crate) use crypt::{Key, SEAL_BYTES};
pub(crate) use customer::{CustomerKey, CustomerKeys};
pub(crate) use master::MasterKeys;

const PSEUDONYMS: &str = "pseudonyms";
/// The secret of the main database by which it knows its keys.
const BELONGING: &str = "dialogues.keys";
/// Keys wrapped anew in one transaction.
const REWRAPPED_AT_ONCE: u64 = 500;
const KEY_FILE: &str = "dialogues.key";

/// Why keys cannot be used. The message says what to do and shows no key.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// The file with the master key cannot be read or made.
    #[error("the master key {}", file_problem(path, cause))]
    File {
        /// Which.
        path: PathBuf,
        /// What the operating system said.
        cause: std::io::Error,
    },
    /// The setting or the file holds something else.
    #[error("{place}: {reason}")]
    Unreadable {
        /// Where it stands.
        place: String,
        /// What is wrong.
        reason: String,
    },
    /// Keys are there and the master key is not.
    #[error(
        "{database} holds keys that a master key has wrapped, and {} is not there; put it back \
         from its backup, copy that of another server on this database, or name it with \
         dialogues.master_key_file. Without it no text can be read",
        path.display()
    )]
    Missing {
        /// The database.
        database: String,
        /// Where the master key should be.
        path: PathBuf,
    },
    /// Keys are there that were wrapped by another master key.
    #[error(
        "{database} holds keys that none of the master keys in {place} has wrapped; add the one \
         that was in force before, or that of the other servers on this database, as a further line. \
         Without it their texts cannot be read"
    )]
    Foreign {
        /// The database.
        database: String,
        /// Where the master keys stand.
        place: String,
    },
    /// The keys are those of another installation.
    #[error(
        "{keys} has the keys of another database than {main}: whoever is erased in one could not be read in the other; name \
         another in dialogues.keys_url. If {main} was begun anew, take the keys over by `auspex migrate --create`"
    )]
    OfOthers {
        /// The database of the keys.
        keys: String,
        /// The database of the texts.
        main: String,
    },
    /// The texts are kept with other keys.
    #[error(
        "the texts in {main} are kept with other keys than those in {keys}; name the database of the other servers in \
         dialogues.keys_url. To go on with these keys, and without the texts under the others, run `auspex migrate --create`"
    )]
    Others {
        /// The database of the keys.
        keys: String,
        /// The database of the texts.
        main: String,
    },
    /// A stored key was wrapped by a master key that came later.
    #[error(
        "a key is wrapped by a master key that this server does not know; add the newest one of the other servers to its own, \
         and restart it"
    )]
    UnknownMaster,
    /// A stored key does not open.
    #[error("a key in the database of the keys is damaged; restore a backup of it")]
    Damaged,
    /// The database of the keys could not be used.
    #[error("the database of the customers' keys: {0}")]
    Database(#[from] DbError),
}

fn file_problem(path: &Path, cause: &std::io::Error) -> String {
    match Obstacle::to_looking(path) {
        Some(obstacle) => obstacle.to_string(),
        None => format!("{}: {cause}; see dialogues.master_key_file", path.display()),
    }
}

impl From<getrandom::Error> for KeysError {
    fn from(error: getrandom::Error) -> Self {
        Self::Database(error.into())
    }
}

/// Where the master keys stand.
enum Place {
    Setting(MasterKeys),
    File(PathBuf),
}

impl Place {
    fn of(config: &Config, data_dir: &Path) -> Result<Self, KeysError> {
        match config.master_key.0.as_str() {
            "" if config.master_key_file.as_os_str().is_empty() => {
                Ok(Self::File(data_dir.join(KEY_FILE)))
            }
            "" => Ok(Self::File(config.master_key_file.clone())),
            text => {
                let keys = MasterKeys::parse(text);
                let keys = keys.map_err(|error| KeysError::Unreadable {
                    place: "dialogues.master_key".into(),
                    reason: error.to_string(),
                })?;
                Ok(Self::Setting(keys))
            }
        }
    }

    fn name(&self) -> String {
        match self {
            Self::Setting(_) => "dialogues.master_key".into(),
            Self::File(path) => path.display().to_string(),
        }
    }
}

/// The file that holds the master key by these settings; `None` where a setting has it.
pub fn master_key_file(config: &Config, data_dir: &Path) -> Option<PathBuf> {
    match Place::of(config, data_dir) {
        Ok(Place::File(path)) => Some(path),
        _ => None,
    }
}

/// What a look at the master key shows.
#[derive(Debug, PartialEq, Eq)]
pub enum MasterKeyState {
    /// It is not there, and nothing was wrapped yet: the first start makes this file.
    NotMade(PathBuf),
    /// It can be read from here, and nothing was wrapped yet.
    Unused(String),
    /// It has wrapped what stands in the keys database.
    InForce(String),
}

/// Looks at the master key and changes nothing. `stored` is the keys database with its name, if there is one.
///
/// # Errors
/// [`KeysError`]: a start would fail for the same reason.
pub async fn look_at_master_key(
    config: &Config,
    data_dir: &Path,
    stored: Option<(&Connection, &str)>,
) -> Result<MasterKeyState, KeysError> {
    let place = Place::of(config, data_dir)?;
    let name = place.name();
    let mut used = Vec::new();
    let mut secret = None;
    if let Some((connection, _)) = stored
        && store::has_tables(connection).await?
    {
        used = store::master_ids(connection).await?;
        secret = store::secret(connection, PSEUDONYMS).await?;
    }
    let database = stored.map_or_else(String::new, |(_, name)| name.to_owned());
    let master = match place {
        Place::Setting(keys) => keys,
        Place::File(path) => match read(&path)? {
            Some(keys) => keys,
            None if used.is_empty() => return Ok(MasterKeyState::NotMade(path)),
            None => return Err(KeysError::Missing { database, path }),
        },
    };
    if !used.iter().all(|id| master.knows(id)) {
        let place = name;
        return Err(KeysError::Foreign { database, place });
    }
    match secret {
        None => Ok(MasterKeyState::Unused(name)),
        Some((wrapped, id)) => match master.unwrap(&id, PSEUDONYMS.as_bytes(), wrapped) {
            Some(_) => Ok(MasterKeyState::InForce(name)),
            None => Err(KeysError::Damaged),
        },
    }
}

/// Sees to it that texts and keys belong together: two servers whose texts are the same and whose keys are not would each drop
/// what the other has, and whose keys alone are the same would erase each other's.
pub(crate) async fn belong_together(
    main: &Db,
    keys: &Db,
    (clock, random): (&Clock, &Random),
) -> Result<(), KeysError> {
    let others = || KeysError::Others {
        keys: keys.name(),
        main: main.name(),
    };
    let noted = secrets::find(main, BELONGING).await?;
    let known = keys.read(async |connection| store::belonging(connection).await);
    let main_id = id_of(main, clock, random).await?;
    let (belongs_to, id) = match (known.await?, &noted) {
        (Some(known), _) => known,
        (None, Some(_)) => return Err(others()),
        (None, None) => {
            let drawn = random.bytes()?;
            keys.write(async |transaction| store::belong(transaction, main_id, drawn).await)
                .await?
        }
    };
    if belongs_to != main_id {
        return Err(KeysError::OfOthers {
            keys: keys.name(),
            main: main.name(),
        });
    }
    let noted = match noted {
        Some(noted) => noted,
        None => secrets::keep_first(main, BELONGING, &id, clock.now()).await?,
    };
    match noted == id {
        true => Ok(()),
        false => Err(others()),
    }
}

/// Makes texts and keys forget what they belong to.
///
/// # Errors
/// [`DbError`] of either database.
pub(crate) async fn release(main: &Db, keys: &Db) -> Result<(), DbError> {
    secrets::forget(main, BELONGING).await?;
    keys.write(async |transaction| store::release(transaction).await)
        .await
}

/// Opens what the keys database holds. Its tables are up to date. The first start makes the master
/// key; later ones never do, for what another one has wrapped would be lost without a word.
pub(crate) async fn open(
    db: Db,
    config: &Config,
    data_dir: &Path,
    clock: Clock,
    random: Random,
) -> Result<(CustomerKeys, Pseudonyms), KeysError> {
    let place = Place::of(config, data_dir)?;
    let used = db
        .read(async |connection| store::master_ids(connection).await)
        .await?;
    let name = place.name();
    let master = match place {
        Place::Setting(keys) => keys,
        Place::File(path) => read_or_create(path, used.is_empty(), &db, &random)?,
    };
    if !used.iter().all(|id| master.knows(id)) {
        let database = db.name();
        return Err(KeysError::Foreign {
            database,
            place: name,
        });
    }
    let pseudonyms = pseudonyms(&db, &master, &random, &name).await?;
    if used.iter().any(|id| *id != master.current().0) {
        rewrap(&db, &master, &random).await?;
        tracing::info!(
            "the customers' keys are wrapped by the newest master key; older ones may go"
        );
    }
    Ok((CustomerKeys::new(db, master, clock, random), pseudonyms))
}

fn read_or_create(
    path: PathBuf,
    is_first_start: bool,
    db: &Db,
    random: &Random,
) -> Result<MasterKeys, KeysError> {
    let failed = |cause| KeysError::File {
        path: path.clone(),
        cause,
    };
    if let Some(keys) = read(&path)? {
        narrow(&path);
        return Ok(keys);
    }
    if !is_first_start {
        let database = db.name();
        return Err(KeysError::Missing { database, path });
    }
    match MasterKeys::create(&path, random) {
        // Another process that starts on the same folder was faster.
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            read(&path)?.ok_or_else(|| failed(error))
        }
        made => made.map_err(failed),
    }
}

/// The keys in a file; `None` where there is none.
fn read(path: &Path) -> Result<Option<MasterKeys>, KeysError> {
    let read = MasterKeys::read(path).map_err(|cause| KeysError::File {
        path: path.to_owned(),
        cause,
    })?;
    read.transpose().map_err(|reason| KeysError::Unreadable {
        place: path.display().to_string(),
        reason: reason.to_string(),
    })
}

/// The key of the pseudonyms, drawn the first time. Of several processes at once one makes it, and
/// all get that one.
async fn pseudonyms(
    db: &Db,
    master: &MasterKeys,
    random: &Random,
    place: &str,
) -> Result<Pseudonyms, KeysError> {
    let found = db.read(async |connection| store::secret(connection, PSEUDONYMS).await);
    let (wrapped, master_id) = match found.await? {
        Some(found) => found,
        None => {
            let (id, wrapped) =
                master.wrap(random, PSEUDONYMS.as_bytes(), &Key::random(random)?)?;
            let kept = db.write(async |transaction| {
                store::insert_secret_if_absent(transaction, PSEUDONYMS, wrapped, &id).await?;
                store::secret(transaction, PSEUDONYMS).await
            });
            kept.await?.ok_or(KeysError::Damaged)?
        }
    };
    let key = master.unwrap(&master_id, PSEUDONYMS.as_bytes(), wrapped);
    match key {
        Some(key) => Ok(Pseudonyms::new(key.expose())),
        None if master.knows(&master_id) => Err(KeysError::Damaged),
        None => Err(KeysError::Foreign {
            database: db.name(),
            place: place.to_owned(),
        }),
    }
}

/// Wraps by the newest master key what older ones have wrapped.
async fn rewrap(db: &Db, master: &MasterKeys, random: &Random) -> Result<(), KeysError> {
    let (newest, _) = master.current();
    let secret = db.write(async |transaction| -> Result<_, KeysError> {
        let Some((wrapped, id)) = store::secret(transaction, PSEUDONYMS).await? else {
            return Ok(());
        };
        let key = master.unwrap(&id, PSEUDONYMS.as_bytes(), wrapped);
        let key = key.ok_or(KeysError::Damaged)?;
        let (id, wrapped) = master.wrap(random, PSEUDONYMS.as_bytes(), &key)?;
        Ok(store::set_secret(transaction, PSEUDONYMS, wrapped, &id).await?)
    });
    secret.await?;
    loop {
        let done = db.write(async |transaction| -> Result<_, KeysError> {
            let some = store::not_wrapped_by(transaction, &newest, REWRAPPED_AT_ONCE).await?;
            let count = some.len();
            for mut stored in some {
                let context = context(stored.customer, &stored.id);
                let key = master.unwrap(&stored.master_id, &context, stored.wrapped);
                let key = key.ok_or(KeysError::Damaged)?;
                let (id, wrapped) = master.wrap(random, &context, &key)?;
                stored.wrapped = wrapped;
                stored.master_id = id.to_vec();
                store::set_wrapped(transaction, &stored).await?;
            }
            Ok(count == 0)
        });
        if done.await? {
            return Ok(());
        }
    }
}

/// What a customer's key is wrapped with: it does not open in another row.
fn context(customer: CustomerRef, key_id: &[u8; 16]) -> [u8; 32] {
    let mut context = [0; 32];
    context[..16].copy_from_slice(customer.as_bytes());
    context[16..].copy_from_slice(key_id);
    context
}
