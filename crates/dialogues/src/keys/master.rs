//! The master key, which wraps all others. It comes from a setting or a file and is in no database.
//!
//! Several may be in force: the first wraps, all unwrap. So it is replaced by putting a new line in
//! front; what the older ones wrapped is wrapped anew at the next start, and then they may go.

use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use auspex_kernel::Random;
use auspex_kernel::files::{PRIVATE, give_to_owner_of_folder, what_is_no_file};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::crypt::Key;

const KEYS_MAX: usize = 8;
const KEY_BYTES: usize = 32;
/// Room for all keys, with comments.
const FILE_BYTES_MAX: usize = 16 << 10;

/// Names a master key beside what it has wrapped.
pub(crate) type MasterId = [u8; 8];

/// The master keys in force, newest first.
#[derive(Debug)]
pub(crate) struct MasterKeys(Vec<(MasterId, Key)>);

/// Why a text holds no master keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoMasterKeys {
    #[error("must be one line for each key, newest first, and there is none")]
    Empty,
    #[error("must be one line for each key, and is no text; put the key back from its backup")]
    NoText,
    #[error("line {0} is not 32 bytes in base64 or hex; `openssl rand -base64 32` prints a key")]
    Line(usize),
    #[error("holds a key twice, in line {0}")]
    Repeated(usize),
    #[error("holds more than {KEYS_MAX} keys")]
    TooMany,
}

impl MasterKeys {
    /// Reads one key a line; empty lines and lines that begin with # do not count.
    pub(crate) fn parse(text: &str) -> Result<Self, NoMasterKeys> {
        let mut keys: Vec<(MasterId, Key)> = Vec::new();
        for (line, text) in (1..).zip(text.lines()) {
            let text = text.trim();
            if text.is_empty() || text.starts_with('#') {
                continue;
            }
            let key = decode(text).ok_or(NoMasterKeys::Line(line))?;
            let id = id_of(&key);
            if keys.iter().any(|(known, _)| *known == id) {
                return Err(NoMasterKeys::Repeated(line));
            }
            keys.push((id, key));
        }
        match keys.len() {
            0 => Err(NoMasterKeys::Empty),
            1..=KEYS_MAX => Ok(Self(keys)),
            _ => Err(NoMasterKeys::TooMany),
        }
    }

    /// Draws a key and writes it to a file that is not there yet and that only its owner may read.
    pub(crate) fn create(path: &Path, random: &Random) -> std::io::Result<Self> {
        let key = Key::random(random).map_err(std::io::Error::other)?;
        let text = Zeroizing::new(STANDARD.encode(key.expose()));
        let mut file = std::fs::OpenOptions::new()
            .create_new(true)
            .write(true)
            .mode(PRIVATE)
            .open(path)?;
        give_to_owner_of_folder(&file, path);
        writeln!(file, "{}", *text)?;
        file.sync_all()?;
        // Its name, too, has to be there after a crash: without it nothing can be read.
        if let Some(folder) = path.parent() {
            std::fs::File::open(folder)?.sync_all()?;
        }
        Ok(Self(vec![(id_of(&key), key)]))
    }

    /// Reads a file; `None` where there is none.
    pub(crate) fn read(path: &Path) -> std::io::Result<Option<Result<Self, NoMasterKeys>>> {
        let metadata = match std::fs::metadata(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            found => found?,
        };
        // Opening a pipe would wait for its other end.
        if let Some(found) = what_is_no_file(&metadata) {
            return Err(std::io::Error::other(format!("it is {found}, not a file")));
        }
        let mut bytes = Zeroizing::new(Vec::with_capacity(FILE_BYTES_MAX));
        let file = std::fs::File::open(path)?;
        file.take(FILE_BYTES_MAX as u64).read_to_end(&mut bytes)?;
        Ok(Some(match std::str::from_utf8(&bytes) {
            Ok(text) => Self::parse(text),
            Err(_) => Err(NoMasterKeys::NoText),
        }))
    }

    /// The one that wraps.
    pub(crate) fn current(&self) -> (MasterId, &Key) {
        let (id, key) = &self.0[0];
        (*id, key)
    }

    /// Wraps a key. It is unwrapped only with the same `context`.
    pub(crate) fn wrap(
        &self,
        random: &Random,
        context: &[u8],
        key: &Key,
    ) -> Result<(MasterId, Vec<u8>), getrandom::Error> {
        let (id, master) = self.current();
        Ok((id, master.seal(random, context, key.expose())?))
    }

    /// Whether one of these wrapped it.
    pub(crate) fn knows(&self, id: &[u8]) -> bool {
        self.0.iter().any(|(known, _)| known == id)
    }

    /// Unwraps a key; `None` if none of these wrapped it so.
    pub(crate) fn unwrap(&self, id: &[u8], context: &[u8], wrapped: Vec<u8>) -> Option<Key> {
        let (_, master) = self.0.iter().find(|(known, _)| known == id)?;
        Key::from_bytes(&master.open(context, wrapped)?)
    }
}

fn decode(text: &str) -> Option<Key> {
    let bytes = match text.len() {
        64 => hex(text)?,
        _ => Zeroizing::new(STANDARD.decode(text).ok()?),
    };
    Key::from_bytes(&bytes)
}

fn hex(text: &str) -> Option<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(KEY_BYTES));
    for pair in text.as_bytes().chunks(2) {
        let digit = |byte: u8| char::from(byte).to_digit(16);
        let byte = digit(pair[0])? << 4 | digit(*pair.get(1)?)?;
        bytes.push(u8::try_from(byte).ok()?);
    }
    Some(bytes)
}

/// Tells nothing of the key.
fn id_of(key: &Key) -> MasterId {
    let digest = Sha256::new()
        .chain_update(b"auspex dialogues master key\0")
        .chain_update(key.expose())
        .finalize();
    std::array::from_fn(|place| digest[place])
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn keys_are_read_in_both_forms_and_others_refused_by_line() {
        let (old, new) = ("00".repeat(32), STANDARD.encode([7; 32]));
        let keys = MasterKeys::parse(&format!("# newest first\n{new}\n\n {old} \n")).unwrap();
        assert_eq!(keys.current().1.expose(), &[7; 32]);
        assert_eq!(keys.0.len(), 2);
        let wrong = |text: &str| MasterKeys::parse(text).unwrap_err();
        assert_eq!(wrong("\n# x\n"), NoMasterKeys::Empty);
        assert_eq!(wrong(&format!("{new}\nAAAA")), NoMasterKeys::Line(2));
        assert_eq!(wrong(&"g".repeat(64)), NoMasterKeys::Line(1));
        assert_eq!(wrong(&"é".repeat(32)), NoMasterKeys::Line(1));
        assert_eq!(wrong(&format!("{old}\n{old}")), NoMasterKeys::Repeated(2));
        let many: Vec<_> = (0..9)
            .map(|byte| format!("{byte:02x}").repeat(32))
            .collect();
        assert_eq!(wrong(&many.join("\n")), NoMasterKeys::TooMany);
    }

    #[test]
    fn a_key_file_is_private_and_never_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dialogues.key");
        assert!(MasterKeys::read(&path).unwrap().is_none());
        let made = MasterKeys::create(&path, &Random::system()).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let read = MasterKeys::read(&path).unwrap().unwrap().unwrap();
        assert_eq!(read.current().0, made.current().0);
        assert!(MasterKeys::create(&path, &Random::system()).is_err());
        std::fs::write(&path, [0xff; 40]).unwrap();
        let garbage = MasterKeys::read(&path).unwrap().unwrap();
        assert_eq!(garbage.unwrap_err(), NoMasterKeys::NoText);
        let folder = MasterKeys::read(folder.path()).unwrap_err();
        assert!(folder.to_string().contains("a folder"), "{folder}");
    }

    #[test]
    fn what_an_older_key_wrapped_is_unwrapped_until_that_goes() {
        let random = Random::system();
        let (old, new) = (STANDARD.encode([1; 32]), STANDARD.encode([2; 32]));
        let before = MasterKeys::parse(&old).unwrap();
        let key = Key::random(&random).unwrap();
        let (id, wrapped) = before.wrap(&random, b"customer", &key).unwrap();
        let during = MasterKeys::parse(&format!("{new}\n{old}")).unwrap();
        let unwrapped = during.unwrap(&id, b"customer", wrapped.clone()).unwrap();
        assert_eq!(unwrapped.expose(), key.expose());
        assert!(during.unwrap(&id, b"another", wrapped.clone()).is_none());
        let after = MasterKeys::parse(&new).unwrap();
        assert!(!after.knows(&id));
        assert!(after.unwrap(&id, b"customer", wrapped).is_none());
    }
}
