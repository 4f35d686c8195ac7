//! Who asks too often is told so in the form that they can read.

use crate::server::Server;

#[test]
fn too_many_requests_are_a_page_for_people_and_an_error_for_clients() {
    let server = Server::start_with(&[("AUSPEX__SERVER__ADDRESS_LIMIT__MAX", "3")]);
    for _ in 0..5 {
        server.connect().send("GET", "/oauth2/login", &[], b"");
    }
    for path in [
        "/oauth2/login",
        "/oauth2/authorize",
        "/oauth2/end-session",
        "/oauth2/continue",
    ] {
        let page = server.connect().send("GET", path, &[], b"");
        assert_eq!(page.status, 429, "{path}");
        assert_eq!(
            page.header("content-type"),
            Some("text/html; charset=utf-8")
        );
        assert!(page.header("retry-after").is_some(), "{path}");
        assert!(page.text().contains("role=\"alert\""), "{}", page.text());
    }
    let form = [("Content-Type", "application/x-www-form-urlencoded")];
    for path in ["/oauth2/token", "/oauth2/introspect", "/oauth2/revoke"] {
        let refused = server.connect().send("POST", path, &form, b"grant_type=x");
        assert_eq!(refused.status, 429, "{path}");
        assert!(refused.header("retry-after").is_some(), "{path}");
        assert_eq!(
            super::error_of(&refused),
            "temporarily_unavailable",
            "{path}"
        );
    }
}
