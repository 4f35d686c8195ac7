//! Why a token is refused, as an operator needs it in the log.
//!
//! The client learns only that it is unauthenticated: each reason more would help who is guessing.

/// The reason. Names parts, members and claims by constants of this program, never by the token's
/// text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    /// Longer than any token that is meant seriously.
    #[error("the token is longer than 8 KiB")]
    TooLong,
    /// Not `header.payload.signature`.
    #[error("the token does not have three parts")]
    NotThreeParts,
    /// A part with padding, foreign characters or leftover bits.
    #[error("the token's {0} is not base64url without padding")]
    Encoding(&'static str),
    /// A part that is not JSON, or JSON of another type.
    #[error("the token's {0} is not a JSON object")]
    NotAnObject(&'static str),
    /// Two members of one name, which two readers may read in two ways.
    #[error("the token's {0} has a member twice")]
    DuplicateMember(&'static str),
    /// A member of the header of the wrong type or length.
    #[error("the token's header has no usable \"{0}\"")]
    HeaderMember(&'static str),
    /// A member of the header that brings a key, or changes how the token is to be read.
    #[error("the token's header has \"{0}\", which is not supported")]
    HeaderForbidden(&'static str),
    /// `alg` is `none`, in whichever case.
    #[error("the token is not signed: its algorithm is \"none\"")]
    AlgorithmNone,
    /// `alg` is HS256 or the like, which would make a public key a secret.
    #[error("the token's algorithm is symmetric; only EdDSA, ES256 and RS256 are taken")]
    AlgorithmSymmetric,
    /// Any other algorithm.
    #[error("the token's algorithm is none of EdDSA, ES256 and RS256")]
    AlgorithmUnsupported,
    /// `alg` differs from what the key is for.
    #[error("the token's algorithm is not the one its key is for")]
    AlgorithmMismatch,
    /// `alg` is not among those configured for the issuer.
    #[error("the token's algorithm is not among those allowed for its issuer")]
    AlgorithmNotAllowed,
    /// `kid` names no key of the issuer, or there is none and several keys would do.
    #[error("the token's key is not among the issuer's keys")]
    UnknownKey,
    /// The signature is wrong.
    #[error("the token's signature does not fit")]
    Signature,
    /// A claim that must be there is not.
    #[error("the token has no claim \"{0}\"")]
    ClaimMissing(&'static str),
    /// A claim of the wrong type: a time that is no whole number, say.
    #[error("the token's claim \"{0}\" is not of its type")]
    ClaimMalformed(&'static str),
    /// `typ` is not among those expected.
    #[error("the token is of another type than expected (header \"typ\")")]
    Type,
    /// `iss` is another, or none that is trusted.
    #[error("the token's issuer (\"iss\") is not a trusted one")]
    Issuer,
    /// `aud` does not name this service.
    #[error("the token is meant for another audience (\"aud\")")]
    Audience,
    /// `exp` has come.
    #[error("the token has expired (\"exp\")")]
    Expired,
    /// `nbf` has not come.
    #[error("the token is not valid yet (\"nbf\")")]
    NotYetValid,
    /// `iat` lies ahead: a clock is wrong, here or at the issuer.
    #[error("the token was issued in the future (\"iat\"); compare the clocks")]
    IssuedInTheFuture,
    /// An ID token tells a client who logged in; it grants nothing. Nor does a refresh token here.
    #[error("the token is an ID, refresh or logout token, not an access token")]
    IdToken,
    /// Its sender would have to prove that they hold a key (DPoP, mutual TLS), which is not asked
    /// for here: to take it all the same would make it worth stealing.
    #[error("the token is bound to a key of its holder (\"cnf\"), which is not supported")]
    Bound,
    /// The issuer's keys could not be had.
    #[error("the issuer's keys cannot be fetched at the moment")]
    KeysUnavailable,
}
