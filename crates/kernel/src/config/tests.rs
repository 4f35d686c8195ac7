//! Layers, and what is said of what is wrong in them.

use super::*;

const DEFAULTS: &str = "[server]\nlisten = \"127.0.0.1:8080\"\nsecret = \"\"\n\
    [server.rate_limit]\nmax = 1000\nwindow_s = 60\nratio = 1.0\n";

fn with_env(name: &str, value: &str) -> Result<Layers, ConfigError> {
    let mut layers = Layers::new(DEFAULTS);
    layers.env([(name.to_owned(), value.to_owned())])?;
    Ok(layers)
}

#[test]
fn later_layers_win() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("auspex.toml");
    std::fs::write(&path, "[server.rate_limit]\nmax = 5\nwindow_s = 7\n").expect("written");
    let mut layers = Layers::new(DEFAULTS);
    layers
        .file(&path, &read_file(&path).expect("read"))
        .expect("valid");
    layers
        .env([("AUSPEX__SERVER__RATE_LIMIT__MAX".into(), "9".into())])
        .expect("a known key");
    let limit = lookup(&layers.merged, "server.rate_limit").expect("there");
    assert_eq!(
        (limit["max"].as_integer(), limit["window_s"].as_integer()),
        (Some(9), Some(7))
    );
}

#[test]
fn a_wrong_key_is_named_with_the_nearest_right_one() {
    let error = with_env("AUSPEX__SERVER__RATE_LIMT__MAX", "9").expect_err("a typo");
    assert_eq!(
        error.to_string(),
        "AUSPEX__SERVER__RATE_LIMT__MAX: unknown setting \"server.rate_limt\"; \
         did you mean \"server.rate_limit\"?"
    );
    let error = with_env("AUSPEX__XYZZY", "9").expect_err("unknown");
    assert_eq!(
        error.to_string(),
        "AUSPEX__XYZZY: unknown setting \"xyzzy\""
    );
}

#[test]
fn a_key_without_its_section_or_its_dots_is_named_with_the_one_that_is_meant() {
    for (variable, meant) in [
        ("AUSPEX__LISTEN", "server.listen"),
        ("AUSPEX__SERVER_LISTEN", "server.listen"),
        ("AUSPEX_SERVER_LISTEN", "AUSPEX__SERVER__LISTEN"),
        (
            "AUSPEX_SERVER__RATE_LIMIT_MAX",
            "AUSPEX__SERVER__RATE_LIMIT__MAX",
        ),
    ] {
        let error = with_env(variable, "9").expect_err("unknown").to_string();
        assert!(error.starts_with(variable), "{error}");
        assert!(
            error.ends_with(&format!("did you mean \"{meant}\"?")),
            "{error}"
        );
    }
    assert!(
        with_env("AUSPEX_HOME", "/x").is_ok(),
        "it is no setting at all"
    );
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("auspex.toml");
    std::fs::write(&path, "listen = \":80\"\n").expect("written");
    let error = Layers::new(DEFAULTS)
        .file(&path, &read_file(&path).expect("read"))
        .expect_err("no section");
    assert!(error.to_string().contains("\"server.listen\""), "{error}");
}

#[test]
fn a_wrong_type_is_named() {
    let error = with_env("AUSPEX__SERVER__RATE_LIMIT__MAX", "many").expect_err("not a number");
    assert!(
        error
            .to_string()
            .contains("\"server.rate_limit.max\" must be of type integer"),
        "{error}"
    );
    assert!(
        with_env("AUSPEX__SERVER__RATE_LIMIT__RATIO", "2").is_ok(),
        "2 is a number too"
    );
    assert!(
        with_env("AUSPEX__SERVER__LISTEN", "8080").is_ok(),
        "text stays text"
    );
}

#[test]
fn urls_are_shown_without_what_they_carry() {
    for (url, shown) in [
        ("postgres://u:hunter2@db/x", "postgres://(not shown)@db/x"),
        (
            "postgres://db/x?password=hunter2",
            "postgres://db/x?(not shown)",
        ),
        (
            "http://127.0.0.1:4318/v1/traces",
            "http://127.0.0.1:4318/v1/traces",
        ),
    ] {
        assert_eq!(without_secrets(url), shown);
    }
}

#[derive(Debug, serde::Deserialize)]
#[expect(dead_code, reason = "only whether it can be built matters")]
struct Typed {
    server: TypedServer,
}

#[derive(Debug, serde::Deserialize)]
#[expect(dead_code, reason = "only whether it can be built matters")]
struct TypedServer {
    listen: std::net::SocketAddr,
}

#[derive(Debug, serde::Deserialize)]
#[expect(dead_code, reason = "only whether it can be built matters")]
struct Counted {
    server: CountedServer,
}

#[derive(Debug, serde::Deserialize)]
#[expect(dead_code, reason = "only whether it can be built matters")]
struct CountedServer {
    rate_limit: Limit,
}

#[derive(Debug, serde::Deserialize)]
#[expect(dead_code, reason = "only whether it can be built matters")]
struct Limit {
    max: u16,
}

#[test]
fn a_wrong_value_is_named_with_the_place_where_it_was_written() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("auspex.toml");
    let text = "# mine\n[server]\nlisten = \"nowhere\"\nrate_limit = { max = 0, window_s = 7 }\n";
    std::fs::write(&path, text).expect("written");
    let mut layers = Layers::new(DEFAULTS);
    layers
        .file(&path, &read_file(&path).expect("read"))
        .expect("known keys");
    let file = path.display();
    let said = |layers: &Layers| layers.build::<Typed>().expect_err("wrong").to_string();
    let place = format!("{file}:3: setting \"server.listen\" is wrong");
    assert!(said(&layers).starts_with(&place), "{}", said(&layers));
    let wrong = |layers: &Layers, key| layers.locate(ConfigError::wrong(key, "no")).to_string();
    layers
        .set("server.rate_limit.max", "-1", "X")
        .expect("known");
    let counted = layers.build::<Counted>().expect_err("negative").to_string();
    assert_eq!(
        counted,
        "X: setting \"server.rate_limit.max\" is wrong: it must be a whole number from 0 to 65535"
    );
    layers
        .file(&path, &read_file(&path).expect("read"))
        .expect("known keys");
    let limit = wrong(&layers, "server.rate_limit.max");
    assert!(limit.starts_with(&format!("{file}:4: ")), "{limit}");
    assert_eq!(
        wrong(&layers, "server.secret"),
        "the default: setting \"server.secret\" no"
    );

    layers
        .env([("AUSPEX__SERVER__LISTEN".into(), "elsewhere".into())])
        .expect("a known key");
    assert!(said(&layers).starts_with("AUSPEX__SERVER__LISTEN: "));
    layers.set("server.listen", "x", "--listen").expect("known");
    assert!(said(&layers).starts_with("--listen: "));
    // A section is wrong as a whole: all that was said of it.
    let section = wrong(&layers, "server.rate_limit");
    assert!(section.starts_with(&format!("{file}:4: ")), "{section}");
}

#[test]
fn an_unknown_key_of_a_file_is_named_with_its_line() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("auspex.toml");
    for (text, line) in [
        ("[server]\n\nlistn = 1\n", 3),
        ("\n[servr]\nlisten = 1\n", 2),
    ] {
        std::fs::write(&path, text).expect("written");
        let error = Layers::new(DEFAULTS)
            .file(&path, &read_file(&path).expect("read"))
            .expect_err("unknown");
        let place = format!("{}:{line}: ", path.display());
        assert!(error.to_string().starts_with(&place), "{error}");
    }
}

#[test]
fn a_syntax_error_names_its_line_and_does_not_show_it() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("auspex.toml");
    std::fs::write(&path, "[server]\nsecret = hunter2\n").expect("written");
    let error = Layers::new(DEFAULTS)
        .file(&path, &read_file(&path).expect("read"))
        .expect_err("no quotes")
        .to_string();
    assert!(
        error.contains("auspex.toml:2") && !error.contains("hunter2"),
        "{error}"
    );
}

#[test]
fn secrets_are_not_shown() {
    let shown = with_env("AUSPEX__SERVER__SECRET", "hunter2")
        .expect("known")
        .show();
    assert!(
        !shown.contains("hunter2") && shown.contains("not shown"),
        "{shown}"
    );
}

#[derive(Debug, PartialEq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Lists {
    origins: Vec<String>,
    issuers: Vec<Issuer>,
}

#[derive(Debug, PartialEq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Issuer {
    url: String,
    client_secret: String,
}

const LISTS: &str = "origins = []\nissuers = []\n";

fn origins(text: &str) -> Result<Vec<String>, ConfigError> {
    let mut layers = Layers::new(LISTS);
    layers.env([("AUSPEX__ORIGINS".to_owned(), text.to_owned())])?;
    layers.build().map(|lists: Lists| lists.origins)
}

#[test]
fn variables_give_lists_too() {
    for text in ["a,b", " a , b, ", "[\"a\", \"b\"]", "[\n'a',\n'b'\n]"] {
        assert_eq!(origins(text).expect(text), ["a", "b"], "{text}");
    }
    assert_eq!(origins("").expect("empty"), [""; 0]);
    assert_eq!(origins("[]").expect("empty"), [""; 0]);
    for text in ["[a]", "[\"a\"", "[1]"] {
        let error = origins(text).expect_err(text).to_string();
        assert!(error.contains("origins"), "{error}");
    }
}

#[test]
fn lists_of_tables_are_taken_whole_and_wrong_keys_in_them_are_named() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("auspex.toml");
    let read = |text: &str| {
        std::fs::write(&path, text).expect("written");
        let mut layers = Layers::new(LISTS);
        layers.file(&path, &read_file(&path).expect("read"))?;
        Ok::<_, ConfigError>((layers.show(), layers.build::<Lists>()?))
    };
    let one = "[[issuers]]\nurl = \"https://a.example.org\"\nclient_secret = \"hunter2\"\n";
    let (shown, lists) = read(one).expect("valid");
    assert_eq!(lists.issuers.len(), 1);
    assert!(
        shown.contains("a.example.org") && !shown.contains("hunter2"),
        "{shown}"
    );
    for (text, named) in [
        (
            format!("{one}clientsecret = 1\n"),
            ["issuers", "clientsecret"],
        ),
        (
            "[[issuers]]\nurl = \"x\"\n".into(),
            ["issuers", "client_secret"],
        ),
        ("issuers = 1\n".into(), ["issuers", "array"]),
    ] {
        let error = read(&text).expect_err(&text).to_string();
        assert!(named.iter().all(|part| error.contains(part)), "{error}");
        assert!(!error.contains("hunter2"), "{error}");
    }
    let second = format!("{one}{one}more = 1\n");
    let error = read(&second).expect_err("unknown").to_string();
    assert!(error.contains("auspex.toml:7: setting"), "{error}");
}

#[test]
fn an_empty_table_takes_any_names_and_each_layer_adds_to_them() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("auspex.toml");
    let file = "[gateway.services.orders]\nendpoints = [\"a\"]\n[gateway.services.users]\nx = 1\n\
        [gateway.services.empty]\n";
    std::fs::write(&path, file).expect("written");
    let mut layers = Layers::new("[gateway]\nservices = {}\n[gateway.limits]\nmax = 1\n");
    layers
        .file(&path, &read_file(&path).expect("read"))
        .expect("any names");
    let variable = "AUSPEX__GATEWAY__SERVICES__ORDERS__TIMEOUT_MS";
    layers
        .env([(variable.into(), "9".into())])
        .expect("any names");
    let orders = lookup(&layers.merged, "gateway.services.orders").expect("there");
    assert_eq!(orders["timeout_ms"].as_integer(), Some(9));
    assert_eq!(orders["endpoints"].as_array().map(Vec::len), Some(1));
    let place = |key: &str| {
        layers
            .locate(ConfigError::wrong(key, "is wrong"))
            .to_string()
    };
    let shown = place("gateway.services.users.x");
    assert!(shown.contains("auspex.toml:4: "), "{shown}");
    assert!(place("gateway.services.empty").contains("auspex.toml:5: "));
    let shown = place("gateway.services.orders.endpoints[0]");
    assert!(shown.contains("auspex.toml:2: "), "{shown}");
    assert!(place("gateway.services.orders.timeout_ms").starts_with(variable));
    for wrong in ["AUSPEX__GATEWAY__ROUTES", "AUSPEX__GATEWAY__LIMITS__MIN"] {
        assert!(
            layers.clone().env([(wrong.into(), "1".into())]).is_err(),
            "{wrong}"
        );
    }
}
