//! `auspex jobs`: submits, watches and reads jobs of a running server, over its API.

mod bar;
mod server;

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek as _, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use http::{StatusCode, header};
use serde_json::Value;

use self::bar::Bar;
use self::server::{Server, Upload};
use super::{Failure, Outcome, control_runtime, is_read, print};
use crate::cli::{JobsCommand, OnServer, RowFormat};
use crate::config::Config;

/// Connections in a row that may break before a command gives up.
const BREAKS_MAX: u32 = 10;
const BREAK_PAUSE: Duration = Duration::from_secs(1);
/// No line of an event is longer.
const EVENT_BYTES_MAX: usize = 1 << 20;

pub(super) fn run(config: &Config, on: OnServer<JobsCommand>) -> Outcome {
    let server = Server::new(config, on.url.as_deref(), on.key_file.as_deref())?;
    control_runtime()?.block_on(async {
        match on.command {
            JobsCommand::Submit {
                file,
                model,
                version,
                format,
                callback_url,
                watch,
            } => {
                let format = format.unwrap_or_else(|| RowFormat::of(&file));
                let query = [
                    ("model", model),
                    ("version", version),
                    ("callback_url", callback_url),
                ];
                let id = submit(&server, &file, format, &query).await?;
                print(&format!("{id}\n"))?;
                match watch {
                    true => self::watch(&server, &id).await,
                    false => Ok(ExitCode::SUCCESS),
                }
            }
            JobsCommand::Watch { id } => watch(&server, &id).await,
            JobsCommand::Result { id, format, output } => {
                result(&server, &id, format, output.as_ref()).await
            }
        }
    })
}

/// Sends a file as the input of a job; its id.
async fn submit(
    server: &Server,
    file: &Path,
    format: RowFormat,
    query: &[(&str, Option<String>)],
) -> Result<String, Failure> {
    let (input, length): (Box<dyn Read + Send>, _) = if file == Path::new("-") {
        (Box::new(io::stdin()), None)
    } else {
        let named = |error: io::Error| format!("{}: {error}", file.display());
        let opened = File::open(file).map_err(named)?;
        let length = opened.metadata().map_err(named)?.len();
        (Box::new(opened), Some(length))
    };
    let given = query
        .iter()
        .filter_map(|(name, value)| Some((*name, value.as_deref()?)));
    let (body, sent) = Upload::of(input, Bar::new("sent", length));
    let request = server
        .post("/v1/jobs", given)?
        .header(header::CONTENT_TYPE, format.content_type())
        .body(reqwest::Body::wrap(body));
    let answer = request.send().await;
    // Why the input could not be read says more than that its request broke off.
    let named = |error: io::Error| format!("{} cannot be read: {error}", file.display());
    sent.await?.map_err(named)?;
    let answer = server.explained(answer)?;
    if answer.status() != StatusCode::ACCEPTED {
        return Err(server.refused(answer).await);
    }
    let job: Value = serde_json::from_slice(&answer.bytes().await?)?;
    let id = job["id"].as_str();
    Ok(id.ok_or("the answer names no job")?.to_owned())
}

/// Shows how far a job is until it has ended.
async fn watch(server: &Server, id: &str) -> Outcome {
    let mut bar = Bar::new("rows", None);
    let mut breaks = 0;
    loop {
        match follow(server, id, &mut bar).await {
            Ok(Some(job)) => return Ok(ended(&job, &bar)),
            // A restart of the server, or the end of a proxy's patience.
            Ok(None) | Err(Followed::Broken(_)) if breaks < BREAKS_MAX => breaks += 1,
            Ok(None) => return Err("the server ends the stream again and again".into()),
            Err(Followed::Broken(failure) | Followed::Refused(failure)) => {
                bar.end();
                return Err(failure);
            }
        }
        tokio::time::sleep(BREAK_PAUSE).await;
    }
}

/// Why a job cannot be followed.
enum Followed {
    /// It may work the next time.
    Broken(Failure),
    Refused(Failure),
}

/// Reads one stream of events; the job, once it has ended.
async fn follow(server: &Server, id: &str, bar: &mut Bar) -> Result<Option<Value>, Followed> {
    let path = format!("/v1/jobs/{id}/events");
    let request = server.get(&path, None).map_err(Followed::Refused)?;
    let answer = server.explained(request.send().await);
    let mut answer = answer.map_err(Followed::Broken)?;
    match answer.status() {
        StatusCode::OK => {}
        status if status.is_server_error() => {
            return Err(Followed::Broken(server.refused(answer).await));
        }
        _ => return Err(Followed::Refused(server.refused(answer).await)),
    }
    let (mut text, mut is_end) = (Vec::new(), false);
    loop {
        let piece = answer.chunk().await;
        let piece = piece.map_err(|error| Followed::Broken(error.into()))?;
        let Some(piece) = piece else {
            return Ok(None);
        };
        text.extend_from_slice(&piece);
        while let Some(end) = text.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = text.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            match line.trim_end().split_once(": ") {
                Some(("event", name)) => is_end = name == "ended",
                Some(("data", data)) => {
                    let job: Value = serde_json::from_str(data).unwrap_or_default();
                    let number = |name| job["progress"][name].as_u64().unwrap_or_default();
                    bar.show(number("done"), Some(number("total")));
                    if is_end {
                        return Ok(Some(job));
                    }
                }
                _ => {}
            }
        }
        if text.len() > EVENT_BYTES_MAX {
            return Err(Followed::Refused("what came is no stream of events".into()));
        }
    }
}

/// Says how a job ended.
fn ended(job: &Value, bar: &Bar) -> ExitCode {
    bar.end();
    let status = job["status"].as_str().unwrap_or_default();
    let (rows, wrong) = (&job["progress"]["total"], &job["progress"]["errors"]);
    match job["error"]["message"].as_str() {
        Some(why) => eprintln!("{status}: {why}"),
        None => eprintln!("{status}: {rows} rows, {wrong} of them wrong"),
    }
    // Where no row could be predicted, the file is not what it was taken for.
    let is_all_wrong = wrong == rows;
    if status == "succeeded" && is_all_wrong {
        eprintln!("no row could be predicted; the result says why for each of them");
    }
    match status {
        "succeeded" if !is_all_wrong => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

/// A file that a result is written to. What has come of it stands beside it under the name of the job until that is all:
/// no part of another result is gone on with, and a file that is there is replaced as a whole, by one of its mode.
struct Target {
    file: PathBuf,
    /// None where it is no file that could be replaced, such as a pipe.
    part: Option<PathBuf>,
}

impl Target {
    fn new(file: &Path, id: &str, format: Option<RowFormat>) -> Self {
        // Not a link to it.
        let file = file.canonicalize().unwrap_or_else(|_| file.to_owned());
        let is_replaced = file.metadata().map_or(true, |found| found.is_file());
        let form = format.map_or("result", |format| format.as_str());
        let part = is_replaced.then(|| {
            let mut part = file.as_os_str().to_owned();
            part.push(format!(".{id}.{form}.part"));
            PathBuf::from(part)
        });
        Self { file, part }
    }

    /// Opens what is written to, and says how much of the result it holds.
    fn open(&self) -> Result<(File, u64), String> {
        let path = self.part.as_ref().unwrap_or(&self.file);
        let named = |error: io::Error| format!("{}: {error}", path.display());
        let opened = OpenOptions::new().create(true).append(true).open(path);
        let mut file = opened.map_err(named)?;
        if self.part.is_some()
            && let Ok(replaced) = self.file.metadata()
        {
            file.set_permissions(replaced.permissions())
                .map_err(named)?;
        }
        let length = match self.part {
            Some(_) => file.seek(SeekFrom::End(0)).map_err(named)?,
            None => 0,
        };
        Ok((file, length))
    }

    fn end(&self) -> Result<(), String> {
        let named = |error: io::Error| format!("{}: {error}", self.file.display());
        let ended = self
            .part
            .as_ref()
            .map(|part| std::fs::rename(part, &self.file));
        ended.unwrap_or(Ok(())).map_err(named)
    }
}

/// Writes the result of a job. What broke off goes on where it ends.
async fn result(
    server: &Server,
    id: &str,
    format: Option<RowFormat>,
    output: Option<&PathBuf>,
) -> Outcome {
    if !id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return Err("an id of a job has letters and digits only".into());
    }
    let target = output.map(|file| Target::new(file, id, format));
    let (mut output, mut written): (Box<dyn Write>, u64) = match &target {
        None => (Box::new(io::stdout()), 0),
        Some(target) => {
            let (file, length) = target.open()?;
            (Box::new(file), length)
        }
    };
    let mut bar = Bar::new("bytes", None);
    let path = format!("/v1/jobs/{id}/result");
    let mut breaks = 0;
    loop {
        let format = format.map(|format| ("format", format.as_str()));
        let mut request = server.get(&path, format)?;
        if written > 0 {
            request = request.header(header::RANGE, format!("bytes={written}-"));
        }
        let received = match server.explained(request.send().await) {
            Ok(answer) => match answer.status() {
                StatusCode::OK if written == 0 => {
                    receive(answer, &mut *output, &mut written, &mut bar).await?
                }
                StatusCode::PARTIAL_CONTENT => {
                    receive(answer, &mut *output, &mut written, &mut bar).await?
                }
                StatusCode::RANGE_NOT_SATISFIABLE if is_whole(&answer, written) => Received::Whole,
                StatusCode::RANGE_NOT_SATISFIABLE => {
                    return Err("what has come of the result is longer than it is; delete the .part beside the file".into());
                }
                status if status.is_server_error() => {
                    Received::Broken(server.refused(answer).await)
                }
                _ => return Err(server.refused(answer).await),
            },
            Err(failure) => Received::Broken(failure),
        };
        let failure = match received {
            Received::Broken(failure) => failure,
            Received::Whole => {
                bar.end();
                is_read(output.flush())?;
                if let Some(target) = &target {
                    target.end()?;
                }
                return Ok(ExitCode::SUCCESS);
            }
        };
        breaks += 1;
        if breaks > BREAKS_MAX {
            bar.end();
            return Err(failure);
        }
        tokio::time::sleep(BREAK_PAUSE).await;
    }
}

/// Whether a range could not be given because there is nothing more.
fn is_whole(answer: &reqwest::Response, written: u64) -> bool {
    let place = answer.headers().get(header::CONTENT_RANGE);
    place.is_some_and(|place| place.as_bytes() == format!("bytes */{written}").as_bytes())
}

/// What came of a result.
enum Received {
    /// All that is there, or that whoever reads it wants.
    Whole,
    Broken(Failure),
}

/// Writes what comes.
async fn receive(
    mut answer: reqwest::Response,
    output: &mut dyn Write,
    written: &mut u64,
    bar: &mut Bar,
) -> Result<Received, Failure> {
    let total = answer.content_length().map(|length| *written + length);
    loop {
        match answer.chunk().await {
            Ok(Some(piece)) => {
                if !is_read(output.write_all(&piece))? {
                    return Ok(Received::Whole);
                }
                *written += piece.len() as u64;
                bar.show(*written, total);
            }
            Ok(None) => return Ok(Received::Whole),
            Err(error) => return Ok(Received::Broken(error.into())),
        }
    }
}
