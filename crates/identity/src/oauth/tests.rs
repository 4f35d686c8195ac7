//! What happens between the reading of a session and the writing of a code. From outside that moment
//! cannot be hit at will.

use std::sync::Arc;
use std::time::Duration;

use auspex_kernel::db::Db;
use auspex_kernel::{Clock, Random, ScopeSet, Timestamp};
use serde_json::json;

use super::{AuthorizationEndpoint, AuthorizationError, Clients, LoginSession, PageSessions, Step};
use crate::audit::Actor;
use crate::config::Config;
use crate::core::Core;
use crate::migration::Migrator;
use crate::password::Password;
use crate::passwords::Passwords;
use crate::throttle::Throttle;
use crate::tokens::Tokens;
use crate::types::client::{Client, ClientDraft, GrantType};
use crate::types::role::Role;
use crate::types::user::{Expected, NewUser, User, UserChange};
use crate::users::Users;

const PASSWORD: &str = "correct horse battery";

struct World {
    users: Users,
    clients: Clients,
    page_sessions: PageSessions,
    endpoint: AuthorizationEndpoint,
    clock: Clock,
    user: User,
    client: Client,
    session: LoginSession,
    _folder: tempfile::TempDir,
}

impl World {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock = Clock::manual(Timestamp(1_769_335_200_000_000));
        let url = format!("sqlite:{}", folder.path().join("auspex.db").display());
        let db = Db::open(&url).await.unwrap();
        auspex_kernel::migrate(&db).await.unwrap();
        db.migrate::<Migrator>().await.unwrap();
        let config = config();
        let core = Arc::new(
            Core::open(db, clock.clone(), Random::system())
                .await
                .unwrap(),
        );
        let throttle = Arc::new(Throttle::new(config.throttle));
        let settings = config.passwords.clone();
        let passwords = Passwords::new(Arc::clone(&core), Arc::clone(&throttle), settings);
        let passwords = Arc::new(passwords);
        let issuer = "https://id.example.org";
        let tokens = Arc::new(Tokens::new(&core, config.tokens, issuer, &[7; 32]));
        let users = Users::new(Arc::clone(&core), Arc::clone(&passwords));
        let clients = Clients::new(Arc::clone(&core), throttle);
        let page_sessions = PageSessions::new(Arc::clone(&core), passwords);
        let endpoint = AuthorizationEndpoint::new(core, clients.clone(), tokens);
        let operator = Actor::operator();
        let user = NewUser {
            name: "Ann".into(),
            email: "ann@example.org".into(),
            username: Some("ann".into()),
            roles: [Role::DataScientist].into_iter().collect(),
            password: Some(PASSWORD.into()),
            ..NewUser::default()
        };
        let user = users.create(&operator, user).await.unwrap();
        let client = ClientDraft {
            name: "App".into(),
            redirect_uris: vec!["https://app.example.org/cb".into()],
            post_logout_redirect_uris: Vec::new(),
            grant_types: vec![GrantType::AuthorizationCode],
            scopes: "predict".parse().unwrap(),
            public: false,
        };
        let client = clients.create(&operator, client).await.unwrap();
        let password = Password::from(PASSWORD);
        let cookie = page_sessions.begin(&operator, "ann", &password, None);
        let cookie = cookie.await.unwrap();
        let session = page_sessions.find(&cookie).await.unwrap().unwrap();
        Self {
            client: client.client,
            users,
            clients,
            page_sessions,
            endpoint,
            clock,
            user,
            session,
            _folder: folder,
        }
    }

    async fn change(&self, change: UserChange) {
        let (operator, any) = (Actor::operator(), Expected::Any);
        let changed = self.users.update(&operator, &self.user.id, change, any);
        changed.await.unwrap();
    }

    /// Whether a user who was logged in when their request was read gets a code after `meanwhile`:
    /// once by agreeing now, and once by having agreed before.
    async fn gets_code_after(&self, meanwhile: impl Future<Output = ()>) -> [bool; 2] {
        let query = format!(
            "response_type=code&client_id={}&redirect_uri=https%3A%2F%2Fapp.example.org%2Fcb\
             &code_challenge=E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM&code_challenge_method=S256",
            self.client.id
        );
        let request = self.endpoint.read(&query).await.unwrap();
        let (endpoint, session) = (&self.endpoint, &self.session);
        let nobody = Actor::operator();
        let agreed = endpoint.decide(&nobody, &request, session, "predict", true);
        assert!(agreed.await.unwrap().contains("code="));
        meanwhile.await;
        let decided = endpoint.decide(&nobody, &request, session, "predict", true);
        let asked = match decided.await {
            Ok(location) => location.contains("code="),
            Err(AuthorizationError::Shown(_)) => false,
            Err(error) => panic!("{error:?}"),
        };
        let remembered = match endpoint.next_step(&nobody, &request, Some(session)).await {
            Ok(Step::Redirect(location)) => location.contains("code="),
            Ok(Step::LogIn | Step::Lack | Step::Ask(_)) | Err(AuthorizationError::Shown(_)) => {
                false
            }
            Err(error) => panic!("{error:?}"),
        };
        [asked, remembered]
    }
}

fn config() -> Config {
    let config = json!({
        "basic_cache_s": 60, "verified_max": 1_000, "issuers": [],
        "tokens": {
            "algorithm": "EdDSA", "audience": "", "access_ttl_s": 900, "refresh_ttl_s": 2_592_000,
            "refresh_grace_s": 10, "signing_key_days": 90, "signing_key_lead_s": 3_600,
        },
        "passwords": {
            "memory_kib": 19_456, "iterations": 2, "parallelism": 1, "threads": 1, "queue_max": 64,
        },
        "throttle": {"failures_max": 20, "window_s": 600, "delay_max_ms": 2_000},
        "retention": {"ended_days": 30, "logins_days": 90, "audit_days": 400},
    });
    serde_json::from_value(config).unwrap()
}

#[tokio::test]
async fn a_code_needs_the_session_the_user_and_the_client_as_they_were_read() {
    let world = World::start().await;
    assert_eq!(world.gets_code_after(async {}).await, [true, true]);

    let world = World::start().await;
    let ended = async {
        let actor = Actor::operator();
        let ended = world.page_sessions.end(&actor, world.session.clone());
        ended.await.unwrap();
    };
    assert_eq!(world.gets_code_after(Box::pin(ended)).await, [false, false]);

    let world = World::start().await;
    let expired = async { world.clock.advance(Duration::from_hours(12)) };
    assert_eq!(world.gets_code_after(expired).await, [false, false]);

    for change in [
        UserChange {
            password: Some(Some("another long secret".into())),
            ..UserChange::default()
        },
        UserChange {
            disabled: Some(true),
            ..UserChange::default()
        },
        UserChange {
            roles: Some([Role::Viewer].into_iter().collect()),
            ..UserChange::default()
        },
    ] {
        let world = World::start().await;
        let changed = world.change(change);
        assert_eq!(world.gets_code_after(changed).await, [false, false]);
    }

    let world = World::start().await;
    let removed = async {
        let actor = Actor {
            scopes: ScopeSet::all(),
            ..Actor::operator()
        };
        let removed = world.clients.delete(&actor, &world.client.id);
        removed.await.unwrap();
    };
    assert_eq!(
        world.gets_code_after(Box::pin(removed)).await,
        [false, false]
    );
}
