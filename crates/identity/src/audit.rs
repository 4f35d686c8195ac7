//! What this service records; see [`auspex_kernel::audit`].

use auspex_kernel::audit::{self, Filter, Line};
use auspex_kernel::page::{Found, Slice};

pub use auspex_kernel::audit::{Actor, Outcome};

use crate::Identity;
use crate::error::IdentityError;

/// A line of this service.
pub(crate) type Event = audit::Event<Action>;

macro_rules! actions {
    ($($variant:ident = $text:literal;)*) => {
        /// What is recorded.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[expect(missing_docs, reason = "the texts say it")]
        pub enum Action { $($variant),* }

        impl Action {
            /// Every action there is.
            pub const ALL: &[Action] = &[$(Action::$variant),*];

        }

        impl audit::Action for Action {
            fn as_str(self) -> &'static str {
                match self { $(Action::$variant => $text),* }
            }
        }
    };
}

actions! {
    UserCreate = "user.create";
    UserUpdate = "user.update";
    UserRoles = "user.roles";
    UserDisable = "user.disable";
    UserEnable = "user.enable";
    UserDelete = "user.delete";
    UserPassword = "user.password";
    Login = "login";
    Logout = "logout";
    TokenRefresh = "token.refresh";
    TokenReuse = "token.reuse";
    TokenRevoke = "token.revoke";
    KeyCreate = "key.create";
    KeyRotate = "key.rotate";
    KeyRevoke = "key.revoke";
    ClientCreate = "client.create";
    ClientDelete = "client.delete";
    ConsentGrant = "consent.grant";
    ConsentDeny = "consent.deny";
    CodeReuse = "code.reuse";
    ClientLogin = "client.login";
    SigningKeyRotate = "signing_key.rotate";
}

impl Identity {
    pub(crate) async fn page_of_audit(
        &self,
        filter: Filter,
        slice: Slice,
    ) -> Result<Found<Line>, IdentityError> {
        let page = self
            .db
            .read(async |connection| audit::page(connection, filter, slice).await);
        Ok(page.await?)
    }
}
