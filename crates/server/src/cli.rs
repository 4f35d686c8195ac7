//! The command line.

use std::path::{Path, PathBuf};

use auspex_identity::{GrantType, Role};
use auspex_inference::{Top, use_onnxruntime};
use auspex_kernel::{Scope, Timestamp};
use clap::{ArgGroup, Args, Parser, Subcommand};

use crate::settings::{Flag, Overrides};
use crate::telemetry::LogFormat;

/// Trained models behind a production API: one binary, one command.
#[derive(Debug, Parser)]
#[command(name = "auspex", version, about, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Args)]
pub(crate) struct Global {
    /// Folder for the database, the first key and the lock [default: ./data]
    #[arg(long, global = true, value_name = "FOLDER")]
    data_dir: Option<PathBuf>,
    /// Folder with MODEL/VERSION/model.{ubj,json}, or one model file [default: ./models]
    #[arg(long, global = true, value_name = "FOLDER")]
    models: Option<PathBuf>,
    /// Settings file [default: ./auspex.toml if it exists]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// How log lines look
    #[arg(long, global = true, value_name = "FORMAT")]
    log_format: Option<LogFormat>,
}

impl Global {
    pub(crate) fn overrides(&self, command: &Command) -> Overrides {
        let (listen, is_strict) = match command {
            Command::Serve { listen, strict, .. } => (listen.as_ref(), *strict),
            Command::Health { listen, .. } => (listen.as_ref(), false),
            _ => (None, false),
        };
        let roles = match command {
            Command::Serve { roles, .. } => roles.as_ref(),
            _ => None,
        };
        let text = |path: &PathBuf| path.display().to_string();
        let format = |format: LogFormat| {
            match format {
                LogFormat::Auto => "auto",
                LogFormat::Json => "json",
                LogFormat::Pretty => "pretty",
            }
            .to_owned()
        };
        let settings = [
            (
                "--data-dir",
                "server.data_dir",
                self.data_dir.as_ref().map(text),
            ),
            (
                "--models",
                "inference.models",
                self.models.as_ref().map(text),
            ),
            (
                "--log-format",
                "telemetry.log_format",
                self.log_format.map(format),
            ),
            ("--listen", "server.listen", listen.cloned()),
            ("--roles", "server.roles", roles.cloned()),
            (
                "--strict",
                "inference.strict",
                is_strict.then(|| "true".to_owned()),
            ),
        ];
        let flag = |(name, key, value): (_, _, Option<String>)| {
            let value = value?;
            Some(Flag { name, key, value })
        };
        Overrides {
            file: self.config.clone(),
            settings: settings.into_iter().filter_map(flag).collect(),
        }
    }
}

/// A command that works on the database beside a server or without one.
#[derive(Debug, Args)]
pub(crate) struct OnDatabase<C: Subcommand> {
    /// Make the database if there is none
    #[arg(long, global = true)]
    pub(crate) create: bool,
    #[command(subcommand)]
    pub(crate) command: C,
}

/// A command that asks a running server.
#[derive(Debug, Args)]
pub(crate) struct OnServer<C: Subcommand> {
    /// Where the server is [default: the configured listen address]
    #[arg(long, global = true, value_name = "URL")]
    pub(crate) url: Option<String>,
    /// A file with the API key [default: admin.key in the data folder]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) key_file: Option<PathBuf>,
    #[command(subcommand)]
    pub(crate) command: C,
}

/// How rows are written.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(crate) enum RowFormat {
    /// A JSON value in each line
    Ndjson,
    /// With a header
    Csv,
}

impl RowFormat {
    /// What the name of a file tells.
    pub(crate) fn of(file: &Path) -> Self {
        match file.extension().and_then(|extension| extension.to_str()) {
            Some(extension) if extension.eq_ignore_ascii_case("csv") => Self::Csv,
            _ => Self::Ndjson,
        }
    }

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Ndjson => "ndjson",
            Self::Csv => "csv",
        }
    }

    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Self::Ndjson => "application/x-ndjson",
            Self::Csv => "text/csv",
        }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum JobsCommand {
    /// Send records as a job and print only its id on standard output
    Submit {
        /// JSON Lines, or CSV with a header; - is standard input
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Name of the model [default: the default model]
        #[arg(long)]
        model: Option<String>,
        /// Version of the model [default: the latest]
        #[arg(long)]
        version: Option<String>,
        /// How the records are written [default: csv for a file of that name, else ndjson]
        #[arg(long, value_name = "FORMAT")]
        format: Option<RowFormat>,
        /// Where the server sends a request when the job has ended
        #[arg(long, value_name = "URL")]
        callback_url: Option<String>,
        /// Then watch it
        #[arg(long)]
        watch: bool,
    },
    /// Show how far a job is until it has ended; exit 0 if it has succeeded
    Watch {
        #[arg(value_name = "ID")]
        id: String,
    },
    /// Write the result of a job to standard output
    Result {
        #[arg(value_name = "ID")]
        id: String,
        /// How it is written [default: as the records were]
        #[arg(long, value_name = "FORMAT")]
        format: Option<RowFormat>,
        /// Write it to this file, and replace one that is there; what broke off is continued
        #[arg(long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
}

/// Beside a running server or without one. A running server alone knows the texts that wait for a
/// decision: it forgets those of an erased customer within a second, and exports them by its API.
#[derive(Debug, Subcommand)]
pub(crate) enum DialoguesCommand {
    /// Print all that is held of a customer, as one JSON document
    Export {
        /// The customer's id as the chatbot sends it, or their pseudonym
        customer: String,
    },
    /// Withdraw the consent to all dialogues of a customer
    Withdraw {
        /// The customer's id as the chatbot sends it, or their pseudonym
        customer: String,
    },
    /// Erase a customer, and print the receipt
    Erase {
        /// The customer's id as the chatbot sends it, or their pseudonym
        customer: String,
    },
    /// Carry out erasures that were cut off, or that a restored backup has undone; each start does so
    ReplayErasures,
    /// Delete what has been kept for as long as the settings say; a running server does so hourly
    Retention {
        /// Only say how much it would be
        #[arg(long)]
        dry_run: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve the models over HTTP until SIGTERM or Ctrl-C
    Serve {
        /// Address and port, as localhost:8080 or 0.0.0.0:8080 [default: 127.0.0.1:8080]
        #[arg(long, value_name = "ADDRESS:PORT")]
        listen: Option<String>,
        /// What this process serves, such as gateway,identity [default: all]
        #[arg(long, value_name = "ROLES")]
        roles: Option<String>,
        /// Do not bring the database up to date (it was done by `auspex migrate`)
        #[arg(long)]
        no_migrate: bool,
        /// End the start with an error where something in the models folder cannot be served
        #[arg(long)]
        strict: bool,
        /// Begin with a new database although the data folder shows that there was one
        #[arg(long, conflicts_with = "no_migrate")]
        create: bool,
    },
    /// Serve the models as a function of AWS Lambda, which starts it: it listens nowhere
    Lambda,
    /// Bring the databases up to date and exit
    Migrate {
        /// Begin with new databases although the data folder shows that there were some
        #[arg(long)]
        create: bool,
    },
    /// Copy the SQLite database to a new file, beside a running server or without one
    Backup {
        /// Copy the database of the customers' keys instead; keep its copies apart, and for days only
        #[arg(long, conflicts_with = "service")]
        keys: bool,
        /// Copy the database that this service has for itself instead, see [storage.services]
        #[arg(long, value_name = "NAME")]
        service: Option<String>,
        /// The file to make
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Put a copy that `auspex backup` made in the place of its database, while no server runs
    Restore {
        /// A copy of the database, or of that of the customers' keys: its tables tell which
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Read JSON Lines, or CSV with a header, from standard input; write a line for each to standard output
    Predict {
        /// A folder with a model file (and perhaps model.toml), or the model file itself
        #[arg(value_name = "MODEL_PACKAGE")]
        package: PathBuf,
        /// Say what each feature added to the margin of the predicted class, or of the number; with TOP, only the
        /// TOP features that added most
        #[arg(long, value_name = "TOP", num_args = 0..=1, require_equals = true)]
        explain: Option<Option<Top>>,
        #[command(flatten)]
        runtime: OnnxRuntime,
    },
    /// Inspect model packages
    #[command(subcommand)]
    Models(ModelsCommand),
    /// Measure the cost of a model on this machine
    Bench {
        /// A folder with a model file (and perhaps model.toml), or the model file itself
        #[arg(value_name = "MODEL_PACKAGE")]
        package: PathBuf,
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        runtime: OnnxRuntime,
    },
    /// Create, list, replace and revoke API keys
    Keys(OnDatabase<KeysCommand>),
    /// Add, list, change and remove users
    Users(OnDatabase<UsersCommand>),
    /// End sessions and tokens, and replace the key that signs them
    Tokens(OnDatabase<TokensCommand>),
    /// Register, list and remove OAuth clients
    Clients(OnDatabase<ClientsCommand>),
    /// Export, withdraw and erase what is held of a customer, and delete what was kept long enough
    #[command(subcommand)]
    Dialogues(DialoguesCommand),
    /// Submit, watch and read jobs of a running server
    Jobs(OnServer<JobsCommand>),
    /// Show or check the settings in force
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Print the OpenAPI document, loaded models included
    Openapi,
    /// Check the data folder and say what to do; changes nothing, exit 0 if all is well
    Doctor,
    /// Ask a running server for its health; exit 0 if it is healthy
    Health {
        /// Ask whether it takes requests, not only whether it is alive
        #[arg(long)]
        ready: bool,
        /// Address and port of the server [default: the configured listen address]
        #[arg(long, value_name = "ADDRESS:PORT")]
        listen: Option<String>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum ModelsCommand {
    /// Load a package, print its schema and engine, run its examples; or all of a models folder
    Check {
        /// A folder with a model file (and perhaps model.toml), the model file itself, or a folder with
        /// MODEL/VERSION/ of which everything is checked; exit 1 if something is wrong
        #[arg(value_name = "MODEL_PACKAGE")]
        package: PathBuf,
        /// First write the SHA-256 of its files into its model.toml, which is checked from then on
        #[arg(long)]
        write_checksum: bool,
        #[command(flatten)]
        runtime: OnnxRuntime,
    },
    /// Write a first model.toml for a model: its features, and from a sample their types and ranges
    Init {
        /// A folder with a model file and no model.toml
        #[arg(value_name = "MODEL_PACKAGE")]
        package: PathBuf,
        /// Inputs of the model as CSV with a header or as JSON Lines; other columns do no harm
        #[arg(long, value_name = "FILE")]
        sample: Option<PathBuf>,
        #[command(flatten)]
        runtime: OnnxRuntime,
    },
}

/// What runs models that the engine does not.
#[derive(Debug, Args)]
pub(crate) struct OnnxRuntime {
    /// libonnxruntime.so of ONNX Runtime, for ONNX graphs that are refused otherwise
    #[arg(long, value_name = "FILE")]
    onnxruntime: Option<PathBuf>,
}

impl OnnxRuntime {
    /// Loads the library, if one is named.
    pub(crate) fn load(&self) -> Result<(), String> {
        match &self.onnxruntime {
            Some(library) => {
                use_onnxruntime(library).map_err(|error| format!("--onnxruntime: {error}"))
            }
            None => Ok(()),
        }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum KeysCommand {
    /// Create a key and print only the key on standard output; it is never shown again
    #[command(group(ArgGroup::new("rights").args(["scopes", "roles"]).required(true).multiple(true)))]
    Create {
        /// What the key is for
        #[arg(long)]
        name: String,
        /// Scope of the key; repeat for more
        #[arg(long = "scope", value_name = "SCOPE")]
        scopes: Vec<Scope>,
        /// Role whose scopes the key gets, those that the role has now; repeat for more
        #[arg(long = "role", value_name = "ROLE")]
        roles: Vec<Role>,
        /// When the key expires, RFC 3339, e.g. 2027-01-31T00:00:00Z
        #[arg(long, value_name = "TIME", value_parser = read_time)]
        expires_at: Option<Timestamp>,
    },
    /// List keys, newest first
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Create a key that replaces another and print only the new key on standard output
    Rotate {
        /// Id of the key, or its name if no other key has the same
        #[arg(value_name = "ID_OR_NAME")]
        key: String,
        /// Seconds for which the old key keeps working
        #[arg(long, value_name = "SECONDS", default_value_t = 86_400, value_parser = clap::value_parser!(u64).range(0..=604_800))]
        overlap_s: u64,
    },
    /// Revoke a key; it stops working at once
    Revoke {
        /// Id of the key, or its name if no other key has the same
        #[arg(value_name = "ID_OR_NAME")]
        key: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum UsersCommand {
    /// Add a user and print only their id on standard output
    Add {
        /// Name shown to people
        #[arg(long)]
        name: String,
        /// E-mail address; no two users share one
        #[arg(long)]
        email: String,
        /// Name to log in with [default: the e-mail address]
        #[arg(long)]
        username: Option<String>,
        /// Age in years
        #[arg(long)]
        age: Option<i32>,
        /// Role of the user; repeat for more
        #[arg(long = "role", value_name = "ROLE")]
        roles: Vec<Role>,
        /// Read the password from the first line of standard input
        #[arg(long)]
        password_stdin: bool,
    },
    /// List users in the order of their creation
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// List users whose names look the same as those of others; the exit code is 1 if there are any
    Conflicts,
    /// Keep a user out and end their sessions
    Disable {
        #[arg(value_name = "ID_OR_USERNAME")]
        user: String,
    },
    /// Let a disabled user in again
    Enable {
        #[arg(value_name = "ID_OR_USERNAME")]
        user: String,
    },
    /// Set a new password for a user and end their sessions
    SetPassword {
        #[arg(value_name = "ID_OR_USERNAME")]
        user: String,
        /// Read it from the first line of standard input
        #[arg(long, required = true)]
        password_stdin: bool,
    },
    /// Replace the roles of a user
    Roles {
        #[arg(value_name = "ID_OR_USERNAME")]
        user: String,
        /// Role that the user has from now on; repeat for more
        #[arg(long = "role", value_name = "ROLE")]
        roles: Vec<Role>,
        /// Take all roles from the user
        #[arg(long, required_unless_present = "roles", conflicts_with = "roles")]
        none: bool,
    },
    /// Remove a user with their keys, sessions and history
    Delete {
        #[arg(value_name = "ID_OR_USERNAME")]
        user: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum TokensCommand {
    /// End tokens at once; passwords and API keys stay
    Revoke(Revoked),
    /// Create a new signing key; it takes over once others have had time to fetch it
    RotateKey {
        /// Use it at once and refuse every token signed before; for when a key has leaked
        #[arg(long)]
        drop_others: bool,
    },
}

/// Which tokens.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Revoked {
    /// Every session of this user, with all its tokens
    #[arg(long, value_name = "ID_OR_USERNAME")]
    pub(crate) user: Option<String>,
    /// One session with all its tokens, by their claim sid
    #[arg(long, value_name = "ID")]
    pub(crate) session: Option<String>,
    /// One access token, by its claim jti
    #[arg(long, value_name = "JTI")]
    pub(crate) jti: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ClientsCommand {
    /// Register a client and print its id and its secret as JSON; the secret is never shown again
    Create {
        /// Name shown to people
        #[arg(long)]
        name: String,
        /// Where browsers may be sent back to, exactly; repeat for more
        #[arg(long = "redirect-uri", value_name = "URI")]
        redirect_uris: Vec<String>,
        /// Where browsers may be sent back to after a logout, exactly; repeat for more
        #[arg(long = "post-logout-redirect-uri", value_name = "URI")]
        post_logout_redirect_uris: Vec<String>,
        /// authorization_code, refresh_token, client_credentials or urn:ietf:params:oauth:grant-type:device_code;
        /// repeat for more
        #[arg(
            long = "grant-type",
            value_name = "GRANT",
            required = true,
            value_parser = read_grant_type
        )]
        grant_types: Vec<GrantType>,
        /// Scope that the client may ask for; repeat for more
        #[arg(long = "scope", value_name = "SCOPE", required = true)]
        scopes: Vec<String>,
        /// The client has no secret because it could not keep one: an app, a web page, a command
        #[arg(long)]
        public: bool,
    },
    /// List clients, oldest first
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Change a client and print it as JSON; what is left out stays as it is
    Update {
        /// Id of the client
        #[arg(value_name = "ID")]
        id: String,
        /// Name shown to people
        #[arg(long)]
        name: Option<String>,
        /// All addresses where browsers may be sent back to; repeat for more
        #[arg(long = "redirect-uri", value_name = "URI")]
        redirect_uris: Option<Vec<String>>,
        /// All addresses where browsers may be sent back to after a logout; repeat for more
        #[arg(long = "post-logout-redirect-uri", value_name = "URI")]
        post_logout_redirect_uris: Option<Vec<String>>,
        /// All of its scopes; repeat for more. If it loses one, its logins end
        #[arg(long = "scope", value_name = "SCOPE")]
        scopes: Option<Vec<String>>,
    },
    /// Give a client another secret and print only that on standard output
    RotateSecret {
        /// Id of the client
        #[arg(value_name = "ID")]
        id: String,
        /// Seconds for which the old secret keeps working
        #[arg(long, value_name = "SECONDS", default_value_t = 86_400, value_parser = clap::value_parser!(u64).range(0..=604_800))]
        overlap_s: u64,
    },
    /// Remove a client; its tokens stop at once
    Delete {
        /// Id of the client
        #[arg(value_name = "ID")]
        id: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Print every setting with its default and what it means
    Defaults,
    /// Print everything in force, secrets left out
    Show,
    /// Check and exit
    Check,
}

fn read_grant_type(text: &str) -> Result<GrantType, String> {
    let known: Vec<&str> = GrantType::ALL.iter().map(|kind| kind.as_str()).collect();
    GrantType::parse(text).ok_or_else(|| format!("must be one of {}", known.join(", ")))
}

fn read_time(text: &str) -> Result<Timestamp, &'static str> {
    Timestamp::parse_rfc3339(text).ok_or("must be RFC 3339, e.g. 2027-01-31T00:00:00Z")
}
