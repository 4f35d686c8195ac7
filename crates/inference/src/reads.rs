//! Reads of the models folder that may never return, as from a network mount whose server has gone.
//!
//! They run on threads that are given up after a while, so that a package that does not answer holds
//! up no other. A path is not read again while an earlier read of it is still out.

use std::collections::HashSet;
use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use auspex_engine::FILE_BYTES_MAX;
use auspex_kernel::clock::monotonic;
use parking_lot::Mutex;

/// The paths that are being read.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reads(Arc<Mutex<HashSet<PathBuf>>>);

impl Reads {
    /// What `read` says of a path; `None` if it does not say it within `limit`.
    pub(crate) fn one<T: Send + 'static>(
        &self,
        path: &Path,
        limit: Duration,
        read: impl Fn(&Path) -> T + Send + Sync + 'static,
    ) -> Option<T> {
        let found = self.each(&[path.to_owned()], limit, read);
        found.into_iter().next().flatten()
    }

    /// What `read` says of each path; `None` for those that do not answer. One thread reads them all.
    /// If it gets stuck, those that are left have a thread each, and `limit` together.
    pub(crate) fn each<T: Send + 'static>(
        &self,
        paths: &[PathBuf],
        limit: Duration,
        read: impl Fn(&Path) -> T + Send + Sync + 'static,
    ) -> Vec<Option<T>> {
        let read = Arc::new(read);
        let mut found: Vec<Option<T>> = paths.iter().map(|_| None).collect();
        let mut left: Vec<usize> = {
            let out = self.0.lock();
            (0..paths.len())
                .filter(|index| !out.contains(&paths[*index]))
                .collect()
        };
        let begin = |indices: &[usize]| {
            let paths = indices.iter().map(|index| paths[*index].clone()).collect();
            self.begin(paths, read.clone())
        };
        let (answers, deadline) = (begin(&left), monotonic() + limit);
        while let [index, rest @ ..] = &left[..]
            && let Some(answer) = receive(&answers, deadline)
        {
            found[*index] = Some(answer);
            left = rest.to_vec();
        }
        drop(answers);
        // The first one is stuck.
        let left: Vec<_> = left
            .into_iter()
            .skip(1)
            .map(|index| (index, begin(&[index])))
            .collect();
        let deadline = monotonic() + limit;
        for (index, answers) in left {
            found[index] = receive(&answers, deadline);
        }
        found
    }

    /// As if a path were being read.
    #[cfg(test)]
    pub(crate) fn hold(&self, path: &Path) {
        self.0.lock().insert(path.to_owned());
    }

    #[cfg(test)]
    pub(crate) fn release(&self, path: &Path) {
        self.0.lock().remove(path);
    }

    /// Begins to read some paths, one after the other.
    fn begin<T: Send + 'static>(
        &self,
        paths: Vec<PathBuf>,
        read: Arc<impl Fn(&Path) -> T + Send + Sync + 'static>,
    ) -> Receiver<T> {
        let (answer, answers) = mpsc::channel();
        let out = self.0.clone();
        let work = move || {
            for path in paths {
                out.lock().insert(path.clone());
                let found = read(&path);
                out.lock().remove(&path);
                if answer.send(found).is_err() {
                    return;
                }
            }
        };
        // Without a thread there is no answer.
        let _ = thread::Builder::new()
            .name("auspex-models".into())
            .spawn(work);
        answers
    }
}

fn receive<T>(answers: &Receiver<T>, deadline: Instant) -> Option<T> {
    let left = deadline.saturating_duration_since(monotonic());
    answers.recv_timeout(left).ok()
}

/// Reads a file of a package. What is no regular file, such as a pipe, is not read: that might never
/// end.
pub(crate) fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut bytes = Vec::new();
    let length = fs::File::open(path)?
        .take(FILE_BYTES_MAX + 1)
        .read_to_end(&mut bytes)?;
    if length as u64 > FILE_BYTES_MAX {
        let message = format!("it is larger than {FILE_BYTES_MAX} bytes");
        return Err(io::Error::other(message));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    const LIMIT: Duration = Duration::from_millis(200);

    /// Three files, of which the second never answers: opening a pipe waits for its other end.
    fn files(folder: &Path) -> Vec<PathBuf> {
        let files: Vec<PathBuf> = ["a", "pipe", "z"].map(|name| folder.join(name)).into();
        fs::write(&files[0], "a").expect("written");
        fs::write(&files[2], "z").expect("written");
        let made = Command::new("mkfifo").arg(&files[1]).status();
        assert!(made.expect("mkfifo").success());
        files
    }

    fn read(path: &Path) -> Option<Vec<u8>> {
        fs::read(path).ok()
    }

    #[test]
    fn a_file_that_does_not_answer_holds_up_no_other_and_is_read_when_it_does() {
        let folder = tempfile::tempdir().expect("a folder");
        let files = files(folder.path());
        let reads = Reads::default();
        let content = |text: &str| Some(Some(text.as_bytes().to_vec()));
        for _ in 0..3 {
            let found = reads.each(&files, LIMIT, read);
            assert_eq!(found, [content("a"), None, content("z")]);
        }
        let begun = monotonic();
        assert_eq!(reads.one(&files[1], Duration::from_secs(60), read), None);
        assert!(
            begun.elapsed() < Duration::from_secs(30),
            "nobody waits a second time"
        );
        // One thread is out; when it is let go, the file is read again.
        fs::write(&files[1], "late").expect("written");
        while !reads.0.lock().is_empty() {
            thread::yield_now();
        }
        fs::remove_file(&files[1]).expect("removed");
        fs::write(&files[1], "file").expect("written");
        let found = reads.each(&files, LIMIT, read);
        assert_eq!(found, [content("a"), content("file"), content("z")]);
    }
}
