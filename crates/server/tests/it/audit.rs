//! The audit record, as its readers ask for it.

use crate::server::Server;

#[test]
fn the_record_is_read_between_times_and_as_csv() {
    let server = Server::start();
    for n in 0..5 {
        let body = format!(r#"{{"name":"k{n}","scopes":["predict"]}}"#);
        let headers = [
            ("X-API-Key", server.key.as_str()),
            ("Content-Type", "application/json"),
            ("X-Request-Id", "-1-2"),
        ];
        let made = server
            .connect()
            .send("POST", "/v1/api-keys", &headers, body.as_bytes());
        assert_eq!(made.status, 201, "{}", made.text());
    }
    let list = |query: &str| server.get(&format!("/v1/audit?action=key.create{query}"));
    let all = list("").json();
    let lines = all["data"].as_array().expect("lines");
    assert_eq!(lines.len(), 6, "and the first key");
    let at = |index: usize| lines[index]["at"].as_str().expect("a time");
    let count = |query: &str| list(query).json()["data"].as_array().map_or(0, Vec::len);
    assert_eq!(count(&format!("&from={}", at(2))), 3);
    assert_eq!(count(&format!("&to={}", at(2))), 3);
    assert_eq!(count(&format!("&from={}&to={}", at(4), at(1))), 3);
    assert_eq!(list("&from=yesterday").status, 422);
    let backwards = list(&format!("&from={}&to={}", at(1), at(4)));
    assert_eq!(backwards.status, 422);
    assert!(
        backwards.text().contains("must not be later than to"),
        "{}",
        backwards.text()
    );
    assert_eq!(list("&format=xml").status, 422);

    // Page by page, by the links of the header.
    let mut path = format!(
        "/v1/audit?action=key.create&from={}&format=csv&limit=2",
        at(5)
    );
    let mut rows = Vec::new();
    loop {
        let page = server.get(&path);
        assert_eq!(page.status, 200, "{}", page.text());
        let kind = page.header("content-type").expect("a type");
        assert_eq!(kind, "text/csv; charset=utf-8; header=present");
        let text = page.text();
        let mut lines = text.split_terminator("\r\n");
        let header = lines.next().expect("a header");
        assert!(header.starts_with("id,at,actor,action,target,"), "{header}");
        rows.extend(lines.map(str::to_owned));
        let links = page.header("link").expect("links").to_owned();
        let next = links.split(", ").find(|link| link.contains("rel=\"next\""));
        match next.and_then(|link| Some(link.split_once('>')?.0.trim_start_matches('<').to_owned()))
        {
            Some(next) => path = next,
            None => break,
        }
    }
    let ids: Vec<&str> = rows
        .iter()
        .filter_map(|row| row.split(',').next())
        .collect();
    let expected: Vec<&str> = lines
        .iter()
        .filter_map(|line| line["id"].as_str())
        .collect();
    assert_eq!(ids, expected);
    assert!(rows[0].ends_with(",'-1-2"), "{}", rows[0]);

    let headers = [("X-API-Key", server.key.as_str()), ("Accept", "text/csv")];
    let by_accept = server.connect().send("GET", "/v1/audit", &headers, b"");
    assert!(by_accept.text().starts_with("id,at,"));
    let vary = by_accept.header("vary").expect("it varies");
    assert!(vary.to_ascii_lowercase().contains("accept"), "{vary}");
}
