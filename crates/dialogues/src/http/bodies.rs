//! What jobs send: a text, or a decision. Bodies are JSON or forms, since jobs are written in many
//! ways, and both are read by one declaration.
//!
//! A decision is `true` or `false` and nothing that merely looks like one: whatever else comes is
//! refused, and never read as a yes.

use std::borrow::Cow;

use auspex_kernel::fields::{Body as _, Kind, Wrong, boolean, optional, required};
use auspex_kernel::{ApiError, FieldError, body, request_body};
use axum::body::Body;
use axum::http::{HeaderMap, header};
use bytes::Bytes;
use percent_encoding::percent_decode;
use serde_json::{Value, json};
use utoipa::openapi::path::{Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::{ObjectBuilder, OneOfBuilder, Schema, SchemaType, Type};
use utoipa::openapi::{Ref, RefOr, Required};
use utoipa::{IntoParams, PartialSchema, ToSchema};
use zeroize::Zeroizing;

use crate::config::{LABEL_BYTES_MAX, is_label};
use crate::language::{BYTES_MAX as LANGUAGE_BYTES_MAX, Language, NoLanguage};

/// What the document says of the longest text; `dialogues.pending.text_bytes_max` decides.
const TEXT_BYTES_USUAL: usize = 16 << 10;
const WHOLE_BODY: &str = "(body)";
/// The names under which a decision may be sent.
const DECISIONS: [&str; 4] = ["consent", "value", "is_accepted", "has_given_consent"];
/// What a decision may state beside itself.
const TERM_FIELDS: [&str; 3] = ["channel", "policy_version", "purpose"];
/// The same terms as in the object form, for jobs that send a bare decision.
const TERMS: [&str; 3] = [
    "X-Consent-Channel",
    "X-Consent-Policy-Version",
    "X-Consent-Purpose",
];

request_body! {
    /// A text of a customer.
    pub(super) struct TextBody as "DialogueText" {
        /// What was said; at most 16 KiB of UTF-8, unless the server is set otherwise
        text: Zeroizing<String> = required(Said),
        /// A BCP 47 tag whose primary language ISO 639 knows
        language: Option<Language> = required(Tag),
    }
}

request_body! {
    /// A decision with what it was about. One of `consent`, `value`, `is_accepted` and
    /// `has_given_consent` is needed; the rest is as in the settings of the server where it is left out.
    pub(super) struct ConsentBody as "DialogueConsent" {
        /// Whether the customer allows the texts of the dialogue to be kept
        consent: Option<bool> = optional(boolean()),
        /// The same under another name
        value: Option<bool> = optional(boolean()),
        /// The same under another name
        is_accepted: Option<bool> = optional(boolean()),
        /// The same under another name
        has_given_consent: Option<bool> = optional(boolean()),
        /// Where the customer was asked
        channel: Option<String> = optional(Label),
        /// The text that the customer agreed to
        policy_version: Option<String> = optional(Label),
        /// What the texts are kept for
        purpose: Option<String> = optional(Label),
    }
}

/// A text that was sent.
pub(super) struct SentText {
    pub(super) text: Zeroizing<String>,
    pub(super) language: Language,
}

/// A decision that was sent.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SentDecision {
    pub(super) consent: bool,
    pub(super) terms: SentTerms,
}

/// What a decision was about. What is `None` is as in the settings.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct SentTerms {
    pub(super) channel: Option<String>,
    pub(super) policy_version: Option<String>,
    pub(super) purpose: Option<String>,
}

/// `true`, `false`, or the object form.
pub(super) struct DecisionBody;

/// The headers with the terms of a decision, for the document.
pub(super) struct ConsentParams;

/// How a body is written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Written {
    Json,
    Form,
    Plain,
}

impl SentText {
    /// Reads a text of at most `bytes_max` bytes.
    ///
    /// # Errors
    /// 400 for a body that cannot be read, 415 for another kind of body, 422 for wrong fields.
    pub(super) fn read(
        headers: &HeaderMap,
        body: &[u8],
        bytes_max: usize,
    ) -> Result<Self, ApiError> {
        let form;
        let json = match written(headers)? {
            Written::Json => body,
            Written::Form => {
                form = form_as_json(body, &[])?;
                form.as_slice()
            }
            Written::Plain => return Err(other_kind()),
        };
        let read = TextBody::parse_and_check(json, |body, fields| {
            if body.text.len() > bytes_max {
                let message = format_args!("must be at most {bytes_max} bytes of UTF-8");
                fields.refuse("text", message);
            }
        });
        let read = read.map_err(without_names)?;
        let language = read
            .language
            .ok_or_else(|| ApiError::internal(NoLanguage))?;
        Ok(Self {
            text: read.text,
            language,
        })
    }
}

impl SentDecision {
    /// Reads a decision with its terms; those in the body count more than those in the headers.
    ///
    /// # Errors
    /// 400 for what is no decision, 415 for another kind of body, 422 for wrong terms.
    pub(super) fn read(headers: &HeaderMap, body: &[u8]) -> Result<Self, ApiError> {
        let written = written(headers)?;
        let sent = match (body.trim_ascii(), written) {
            (b"true", _) => Self::bare(true),
            (b"false", _) => Self::bare(false),
            (json, Written::Json) => Self::of(json)?,
            (form, Written::Form) => Self::of(&form_as_json(form, &DECISIONS)?)?,
            (_, Written::Plain) => return Err(undecided()),
        };
        let terms = SentTerms::of_headers(headers)?;
        Ok(Self {
            consent: sent.consent,
            terms: sent.terms.or(terms),
        })
    }

    fn bare(consent: bool) -> Self {
        Self {
            consent,
            terms: SentTerms::default(),
        }
    }

    fn of(json: &[u8]) -> Result<Self, ApiError> {
        let body = ConsentBody::parse(json).map_err(|error| {
            let is_term = |wrong: &FieldError| TERM_FIELDS.contains(&wrong.field.as_str());
            match !error.details().is_empty() && error.details().iter().all(is_term) {
                true => error,
                false => undecided(),
            }
        })?;
        let sent = [
            body.consent,
            body.value,
            body.is_accepted,
            body.has_given_consent,
        ];
        let mut sent = sent.into_iter().flatten();
        let consent = sent.next().ok_or_else(undecided)?;
        if sent.any(|other| other != consent) {
            return Err(ApiError::malformed(
                "the body says both true and false; send one decision",
            ));
        }
        Ok(Self {
            consent,
            terms: SentTerms {
                channel: body.channel,
                policy_version: body.policy_version,
                purpose: body.purpose,
            },
        })
    }
}

impl SentTerms {
    fn of_headers(headers: &HeaderMap) -> Result<Self, ApiError> {
        let mut wrong = Vec::new();
        let [channel, policy_version, purpose] = TERMS.map(|name| {
            let mut values = headers.get_all(name).iter();
            let value = values.next()?;
            let label = value.to_str().ok().filter(|text| is_label(text));
            if label.is_none() || values.next().is_some() {
                wrong.push(FieldError {
                    field: name.to_owned(),
                    message: label_wanted(),
                });
            }
            label.map(str::to_owned)
        });
        match wrong.is_empty() {
            true => Ok(Self {
                channel,
                policy_version,
                purpose,
            }),
            false => Err(ApiError::validation(wrong)),
        }
    }

    fn or(self, other: Self) -> Self {
        Self {
            channel: self.channel.or(other.channel),
            policy_version: self.policy_version.or(other.policy_version),
            purpose: self.purpose.or(other.purpose),
        }
    }
}

/// Reads the body of a withdrawal, which is a refusal or nothing.
///
/// # Errors
/// As of [`SentDecision::read`]; 400 for a consent.
pub(super) async fn read_withdrawal(
    headers: &HeaderMap,
    body: Body,
) -> Result<SentTerms, ApiError> {
    let body = read_whole(headers, body).await?;
    if body.trim_ascii().is_empty() {
        return SentTerms::of_headers(headers);
    }
    let sent = SentDecision::read(headers, &body)?;
    match sent.consent {
        false => Ok(sent.terms),
        true => Err(ApiError::malformed(
            "consent is given for each dialogue; send false to withdraw all of a customer's",
        )),
    }
}

/// Reads the whole body of a request.
///
/// # Errors
/// As of [`body::read`]; 415 for a compressed one.
pub(super) async fn read_whole(headers: &HeaderMap, body: Body) -> Result<Bytes, ApiError> {
    body::check_encoding(headers)?;
    body::read(body).await
}

fn written(headers: &HeaderMap) -> Result<Written, ApiError> {
    let Some(stated) = headers.get(header::CONTENT_TYPE) else {
        return Ok(Written::Json);
    };
    let essence = stated.to_str().unwrap_or_default();
    let essence = essence.split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
        return Ok(Written::Form);
    }
    if essence.eq_ignore_ascii_case("text/plain") {
        return Ok(Written::Plain);
    }
    match body::check_json(headers) {
        Ok(()) => Ok(Written::Json),
        Err(_) => Err(other_kind()),
    }
}

fn other_kind() -> ApiError {
    ApiError::unsupported_media_type(
        "the body must be JSON or a form; send it with Content-Type: application/json or \
         application/x-www-form-urlencoded",
    )
}

/// The same error without names that the client made up: where a text was sent as it is, it was taken for
/// one.
fn without_names(error: ApiError) -> ApiError {
    if error.details().is_empty() {
        return error;
    }
    let details = error.details().iter().map(|wrong| match &*wrong.field {
        "text" | "language" => wrong.clone(),
        _ => FieldError {
            field: WHOLE_BODY.to_owned(),
            message: "has a field that is not one of this request; it takes text, language"
                .to_owned(),
        },
    });
    ApiError::validation(details.collect())
}

fn undecided() -> ApiError {
    ApiError::malformed(
        "the body is no decision; send true or false, or an object such as {\"consent\": true} with \
         Content-Type: application/json",
    )
}

/// A form as the JSON object that says the same. The values of `bare` stay as they are written.
fn form_as_json(form: &[u8], bare: &[&str]) -> Result<Zeroizing<Vec<u8>>, ApiError> {
    let mut json = Zeroizing::new(vec![b'{']);
    for pair in form
        .split(|byte| *byte == b'&')
        .filter(|pair| !pair.is_empty())
    {
        let split = pair.iter().position(|byte| *byte == b'=');
        let (name, value) = pair.split_at(split.unwrap_or(pair.len()));
        let name = decoded(name)?;
        let value = decoded(value.get(1..).unwrap_or_default())?;
        if json.len() > 1 {
            json.push(b',');
        }
        let is_bare = bare.contains(&name.as_str()) && matches!(value.as_str(), "true" | "false");
        serde_json::to_writer(&mut *json, name.as_str()).map_err(ApiError::internal)?;
        json.push(b':');
        match is_bare {
            true => json.extend_from_slice(value.as_bytes()),
            false => {
                serde_json::to_writer(&mut *json, value.as_str()).map_err(ApiError::internal)?
            }
        }
    }
    json.push(b'}');
    Ok(json)
}

/// A name or a value of a form. What is no UTF-8 is refused rather than replaced.
fn decoded(text: &[u8]) -> Result<Zeroizing<String>, ApiError> {
    let spaced: Vec<u8> = text
        .iter()
        .map(|byte| if *byte == b'+' { b' ' } else { *byte })
        .collect();
    let decoded = percent_decode(&spaced).decode_utf8();
    let decoded = decoded.map_err(|_| ApiError::malformed("the form is not UTF-8"))?;
    Ok(Zeroizing::new(decoded.into_owned()))
}

fn label_wanted() -> String {
    format!("must be 1 to {LABEL_BYTES_MAX} printable ASCII characters")
}

/// What a customer said.
struct Said;

impl Kind for Said {
    type Value = Zeroizing<String>;

    fn read(&self, value: &Value) -> Result<Self::Value, Wrong> {
        let text = value.as_str().filter(|text| !text.is_empty());
        let text = text.ok_or("must be text that is not empty")?;
        Ok(Zeroizing::new(text.to_owned()))
    }

    fn schema(&self) -> Value {
        json!({
            "type": "string", "minLength": 1, "maxLength": TEXT_BYTES_USUAL,
            "example": "My card does not work",
        })
    }
}

/// A language.
pub(super) struct Tag;

impl Kind for Tag {
    type Value = Option<Language>;

    fn read(&self, value: &Value) -> Result<Self::Value, Wrong> {
        let language = value.as_str().ok_or(NoLanguage).and_then(Language::parse);
        language.map(Some).map_err(|error| error.to_string().into())
    }

    fn schema(&self) -> Value {
        json!({
            "type": "string", "minLength": 2, "maxLength": LANGUAGE_BYTES_MAX,
            "pattern": "^[A-Za-z]{2,3}(-[A-Za-z0-9]{1,8})*$", "example": "en",
        })
    }
}

/// A channel, a policy version or a purpose.
struct Label;

impl Kind for Label {
    type Value = String;

    fn read(&self, value: &Value) -> Result<String, Wrong> {
        let label = value.as_str().filter(|text| is_label(text));
        label
            .map(str::to_owned)
            .ok_or_else(|| label_wanted().into())
    }

    fn schema(&self) -> Value {
        json!({
            "type": "string", "minLength": 1, "maxLength": LABEL_BYTES_MAX, "pattern": "^[ -~]+$",
        })
    }
}

impl IntoParams for ConsentParams {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let abouts = [
            "Where the customer was asked",
            "The text that the customer agreed to",
            "What the texts are kept for",
        ];
        let schema: RefOr<Schema> = serde_json::from_value(Label.schema()).expect("a schema");
        let parameter = |(name, about): (&str, &str)| {
            ParameterBuilder::new()
                .name(name)
                .parameter_in(ParameterIn::Header)
                .required(Required::False)
                .description(Some(about))
                .schema(Some(schema.clone()))
                .build()
        };
        TERMS.into_iter().zip(abouts).map(parameter).collect()
    }
}

impl PartialSchema for DecisionBody {
    fn schema() -> RefOr<Schema> {
        let bare = ObjectBuilder::new().schema_type(SchemaType::Type(Type::Boolean));
        let object = Ref::from_schema_name(ConsentBody::name());
        let either = OneOfBuilder::new().item(bare).item(object);
        either
            .description(Some("Whether the texts may be kept."))
            .into()
    }
}

impl ToSchema for DecisionBody {
    fn name() -> Cow<'static, str> {
        "DialogueDecision".into()
    }

    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        schemas.push((ConsentBody::name().into_owned(), ConsentBody::schema()));
    }
}

#[cfg(test)]
mod tests;
