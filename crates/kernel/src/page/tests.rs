//! Pages as a client walks through them.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const KEY: CursorKey = CursorKey([7; 32]);
const ALL: [&str; 5] = ["a", "b", "c", "d", "e"];
const FILTERS: [&str; 2] = ["role", "email"];

fn query(text: &str) -> Result<PageQuery, ApiError> {
    PageQuery::parse(&KEY, "/x", Some(text), &FILTERS)
}

fn page(text: &str) -> (String, Value) {
    let query = query(text).expect("a good query");
    let (entries, pagination) = query.cut(&ALL, |name| name);
    let pagination = serde_json::to_value(&pagination).expect("JSON");
    (entries.into_iter().copied().collect(), pagination)
}

#[test]
fn pages_follow_each_other_to_the_end_in_every_form() {
    for begin in [
        "limit=2&cursor=",
        "per_page=2",
        "offset=0&limit=2",
        "limit=2&email=a%26b%3D%C3%A9+c&role=admin",
    ] {
        let (mut seen, mut next) = (String::new(), Some(begin.to_owned()));
        while let Some(query) = next {
            let (entries, pagination) = page(&query);
            seen += &entries;
            let link = pagination["links"]["next"].as_str();
            next = link.map(|link| link.strip_prefix("/x?").expect("the path").to_owned());
        }
        assert_eq!(seen, ALL.concat(), "{begin}");
    }
}

#[test]
fn pages_and_offsets_say_where_they_stand() {
    let (entries, pagination) = page("page=2&per_page=2");
    let links = json!({
        "self": "/x?page=2&per_page=2", "first": "/x?page=1&per_page=2",
        "last": "/x?page=3&per_page=2", "prev": "/x?page=1&per_page=2",
        "next": "/x?page=3&per_page=2",
    });
    let expected = json!({"total": 5, "page": 2, "per_page": 2, "total_pages": 3, "links": links});
    assert_eq!((entries.as_str(), pagination), ("cd", expected));
    let (entries, pagination) = page("offset=1&limit=3");
    let links = json!({
        "self": "/x?offset=1&limit=3", "first": "/x?offset=0&limit=3",
        "last": "/x?offset=3&limit=3", "prev": "/x?offset=0&limit=3",
        "next": "/x?offset=4&limit=3",
    });
    let expected = json!({"total": 5, "offset": 1, "limit": 3, "links": links});
    assert_eq!((entries.as_str(), pagination), ("bcd", expected));
    for beyond in ["page=1000000000&per_page=1000", "offset=1000000000"] {
        let (entries, pagination) = page(beyond);
        let next = &pagination["links"]["next"];
        assert_eq!((entries.as_str(), next), ("", &Value::Null));
        assert_eq!(pagination["links"]["prev"], pagination["links"]["last"]);
    }
}

/// A page fetched elsewhere: page 3 of 100 entries, 3 a page.
#[test]
fn the_third_page_of_a_hundred_entries_points_where_it_should() {
    let query = PageQuery::parse(&KEY, "/items", Some("page=3&per_page=3"), &[]).expect("good");
    assert_eq!(
        query.slice(),
        Slice::Skip {
            offset: 6,
            count: 3
        }
    );
    let found = vec![7, 8, 9];
    let (entries, pagination) = query.page((found.clone(), 100), |id: &i64| (*id).into());
    assert_eq!(entries, found);
    let link = |page| format!("/items?page={page}&per_page=3");
    assert_eq!(
        serde_json::to_value(&pagination).expect("JSON"),
        json!({
            "total": 100, "page": 3, "per_page": 3, "total_pages": 34,
            "links": {"self": link(3), "first": link(1), "last": link(34), "prev": link(2),
                      "next": link(4)},
        })
    );
    assert_eq!(
        pagination.link_header(),
        "</items?page=1&per_page=3>; rel=\"first\", </items?page=34&per_page=3>; rel=\"last\", \
         </items?page=2&per_page=3>; rel=\"prev\", </items?page=4&per_page=3>; rel=\"next\""
    );
}

#[test]
fn slices_say_which_rows_to_fetch() {
    let slice = |text| {
        let query = query(text).expect("good");
        format!("{:?}", query.slice())
    };
    assert_eq!(slice(""), "Seek { after: None, count: 101 }");
    assert_eq!(
        slice("offset=40&limit=20"),
        "Skip { offset: 40, count: 20 }"
    );
    assert_eq!(
        slice("page=3&per_page=20"),
        "Skip { offset: 40, count: 20 }"
    );
    let query = query("limit=2").expect("good");
    // One more than asked for: there is another page, and this one does not show it.
    let (entries, pagination) = query.page((vec!["5", "7", "9"], 0), |id| (*id).into());
    assert_eq!(entries, ["5", "7"]);
    let pagination = serde_json::to_value(&pagination).expect("JSON");
    let next = pagination["links"]["next"].as_str().expect("a next page");
    let next = PageQuery::parse(&KEY, "/x", next.strip_prefix("/x?"), &FILTERS).expect("ours");
    let after = Some("7".to_owned());
    assert_eq!(next.slice(), Slice::Seek { after, count: 3 });
}

#[test]
fn filters_are_told_and_carried_on() {
    let text = "email=a%26b%3D%C3%A9+%3E&limit=2&role=admin";
    let query = query(text).expect("good");
    assert_eq!(query.filter("role"), Some("admin"));
    assert_eq!(query.filter("email"), Some("a&b=é >"));
    assert_eq!(query.filter("limit"), None);
    let (_, pagination) = query.cut(&ALL, |name| name);
    let json = serde_json::to_value(&pagination).expect("JSON");
    let filters = "/x?role=admin&email=a%26b%3D%C3%A9+%3E&limit=2";
    assert_eq!(json["links"]["first"], filters);
    let header = pagination.link_header();
    let header = header.to_str().expect("ASCII");
    assert!(
        header.starts_with(&format!("<{filters}>; rel=\"first\"")),
        "{header}"
    );
    let (_, pagination) = page(&format!("{text}&offset=0"));
    let next = "/x?role=admin&email=a%26b%3D%C3%A9+%3E&offset=2&limit=2";
    assert_eq!(pagination["links"]["next"], next);
}

#[test]
fn bad_queries_are_refused_by_name() {
    for (text, names) in [
        ("limit=0", "limit"),
        ("limit=1001&page=1", "limit limit"),
        ("limit=ten", "limit"),
        ("limit=", "limit"),
        ("limit=-1", "limit"),
        ("limit=+1", "limit"),
        ("limit=%2B1", "limit"),
        ("page=0&per_page=1001", "page per_page"),
        ("offset=1000000001", "offset"),
        ("limit=1&limit=2", "limit"),
        ("cursor=a&cursor=b", "cursor"),
        ("sort=name&limit=1&filter=x", "sort filter"),
        ("page=1&limit=1&offset=0&cursor=a", "limit offset cursor"),
        ("offset=1&cursor=a", "cursor"),
        ("role=a&role=a&role=b", "role role"),
        ("role=&email=a%00", "role email"),
    ] {
        let error = query(text).map(|_| ()).expect_err(text);
        assert_eq!(error.status().as_u16(), 422, "{text}");
        let details = error.details().iter();
        let found: Vec<&str> = details.map(|error| error.field.as_str()).collect();
        assert_eq!(found.join(" "), names, "{text}");
    }
    assert!(query(&format!("role={}", "x".repeat(257))).is_err());
    let error = query(&"x&".repeat(200)).map(|_| ()).expect_err("refused");
    let details = error.details();
    assert_eq!(
        (details.len(), details[99].field.as_str()),
        (100, "(query)")
    );
}

#[test]
fn cursors_are_of_their_list_and_key_only() {
    let (_, pagination) = page("limit=2&role=admin");
    let cursor = pagination["next_cursor"].as_str().expect("a next page");
    let refused = |key: &CursorKey, path: &str, filters: &str| {
        let query = format!("{filters}cursor={cursor}");
        let read = PageQuery::parse(key, path, Some(&query), &FILTERS);
        read.err().map(|error| error.status().as_u16())
    };
    assert_eq!(refused(&KEY, "/x", "role=admin&"), None);
    assert_eq!(refused(&KEY, "/x", "role=admin&limit=1000&"), None);
    assert_eq!(refused(&KEY, "/x", ""), Some(400));
    assert_eq!(refused(&KEY, "/x", "role=viewer&"), Some(400));
    assert_eq!(refused(&KEY, "/x", "role=admin&email=a&"), Some(400));
    assert_eq!(refused(&KEY, "/y", "role=admin&"), Some(400));
    assert_eq!(refused(&CursorKey([8; 32]), "/x", "role=admin&"), Some(400));
}

#[test]
fn a_cursor_holds_the_last_id_and_the_direction() {
    let text = r#"{"last_id":100,"direction":"next"}"#;
    let cursor: Cursor = serde_json::from_str(text).expect("a cursor");
    let encoded = cursor.encode(&KEY, "/x?");
    assert!(
        encoded
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
    );
    let decoded = Cursor::decode(&encoded, &KEY, "/x?").expect("ours");
    assert_eq!(decoded, cursor);
    assert_eq!(serde_json::to_string(&decoded).expect("JSON"), text);
    // A list does not go backwards, so that it gives no such cursor out.
    let direction = Direction::Prev;
    let back = Cursor {
        direction,
        ..cursor
    }
    .encode(&KEY, "/x?");
    assert_eq!(
        query(&format!("cursor={back}"))
            .map(|_| ())
            .expect_err("no")
            .status(),
        400
    );
}

proptest! {
    #[test]
    fn cursors_come_back_and_changed_ones_do_not(
        id in prop_oneof![any::<i64>().prop_map(Position::from), "\\PC{0,20}".prop_map(Position::from)],
        at in any::<prop::sample::Index>(), by in 1u8..=255,
    ) {
        let cursor = Cursor { last_id: id, direction: Direction::Next };
        let text = cursor.encode(&KEY, "/x?");
        prop_assert_eq!(Cursor::decode(&text, &KEY, "/x?"), Some(cursor));
        let mut changed = text.clone().into_bytes();
        let at = at.index(changed.len());
        changed[at] ^= by;
        let changed = String::from_utf8_lossy(&changed);
        prop_assert_eq!(Cursor::decode(&changed, &KEY, "/x?"), None);
        prop_assert_eq!(Cursor::decode(&text[..at], &KEY, "/x?"), None);
        prop_assert_eq!(Cursor::decode(&format!("{text}A"), &KEY, "/x?"), None);
    }

    #[test]
    fn garbage_is_400_or_422_and_never_a_panic(text in "\\PC{0,60}", cursor in "[A-Za-z0-9_-]{1,60}") {
        if let Err(error) = query(&text) {
            prop_assert!(matches!(error.status().as_u16(), 400 | 422));
        }
        let error = query(&format!("cursor={cursor}")).map(|_| ()).expect_err("not ours");
        prop_assert_eq!(error.status().as_u16(), 400);
    }
}
