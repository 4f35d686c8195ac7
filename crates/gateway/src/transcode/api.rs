//! The calls of a descriptor set, and which requests of HTTP they are (`google/api/http.proto`).

use std::fmt;

use bytes::Bytes;
use http::{HeaderValue, Method};
use prost_reflect::{
    DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, MethodDescriptor,
    Value,
};

use super::pattern::{PathValue, Pattern};

const ANNOTATION: &str = "google.api.http";
pub(super) const HTTP_BODY: &str = "google.api.HttpBody";

/// What of a descriptor set can be asked for. Two of the same bytes are the same.
pub(crate) struct Api {
    bytes: Bytes,
    /// The more special ones first.
    bindings: Vec<Binding>,
}

/// One way to ask for a call.
pub(super) struct Binding {
    method: Method,
    pattern: Pattern,
    pub(super) call: Call,
    pub(super) body: BodyOf,
    pub(super) shape: Shape,
}

/// What a client gets of an answer.
#[derive(Clone)]
pub(super) struct Shape {
    pub(super) message: MessageDescriptor,
    /// Only this of it.
    pub(super) field: Option<FieldDescriptor>,
}

/// A call.
pub(super) struct Call {
    /// `/package.Service/Method`
    pub(super) path: String,
    pub(super) input: MessageDescriptor,
    pub(super) has_stream: bool,
    pub(super) wants_stream: bool,
}

/// What the body of a request is.
pub(super) enum BodyOf {
    Nothing,
    All,
    Field(FieldDescriptor),
}

/// Where a request leads.
pub(super) enum Found<'a> {
    /// With the values of its path.
    Call(&'a Binding, Vec<PathValue<'a>>),
    /// These methods there are.
    OtherMethods(HeaderValue),
    Nothing,
}

impl Api {
    /// # Errors
    /// What is wrong, and what to do about it; to be read after the name of the file.
    pub(crate) fn new(bytes: Bytes) -> Result<Self, String> {
        let pool = DescriptorPool::decode(bytes.clone()).map_err(|error| {
            format!(
                "is no set of descriptors that is whole; make it by protoc --include_imports \
                 --descriptor_set_out=FILE: {error}"
            )
        })?;
        let mut bindings = Vec::new();
        for service in pool.services() {
            for method in service.methods() {
                let name = method.full_name().to_owned();
                let rule = rule_of(&pool, &method);
                let made = rule
                    .iter()
                    .try_for_each(|rule| add(&mut bindings, &method, rule));
                made.map_err(|why| format!("has the method {name}, of which {why}"))?;
            }
        }
        if bindings.is_empty() {
            return Err(
                "has no method with the option google.api.http; import google/api/annotations.proto \
                 and say how each is asked for"
                    .into(),
            );
        }
        bindings.sort_by(|a, b| a.pattern.rank().cmp(&b.pattern.rank()));
        Ok(Self { bytes, bindings })
    }

    /// What a request asks for.
    pub(super) fn find(&self, method: &Method, path: &str) -> Found<'_> {
        let mut others: Vec<&str> = Vec::new();
        for binding in &self.bindings {
            let Some(values) = binding.pattern.values(path) else {
                continue;
            };
            if binding.method == *method {
                // They borrow from the template alone.
                return Found::Call(binding, values);
            }
            if !others.contains(&binding.method.as_str()) {
                others.push(binding.method.as_str());
            }
        }
        match HeaderValue::try_from(others.join(", ")) {
            Ok(methods) if !others.is_empty() => Found::OtherMethods(methods),
            _ => Found::Nothing,
        }
    }
}

fn rule_of(pool: &DescriptorPool, method: &MethodDescriptor) -> Option<DynamicMessage> {
    let extension = pool.get_extension_by_name(ANNOTATION)?;
    let options = method.options();
    if !options.has_extension(&extension) {
        return None;
    }
    options.get_extension(&extension).as_message().cloned()
}

/// Adds what a rule says, and what it adds to that.
fn add(
    bindings: &mut Vec<Binding>,
    method: &MethodDescriptor,
    rule: &DynamicMessage,
) -> Result<(), String> {
    bindings.push(binding(method, rule)?);
    let more = rule.get_field_by_name("additional_bindings");
    for rule in more.as_deref().and_then(Value::as_list).unwrap_or_default() {
        if let Some(rule) = rule.as_message() {
            bindings.push(binding(method, rule)?);
        }
    }
    Ok(())
}

fn binding(method: &MethodDescriptor, rule: &DynamicMessage) -> Result<Binding, String> {
    let (verb, template) = target(rule).ok_or("the rule names no method of HTTP")?;
    let call = Call {
        path: format!("/{}/{}", method.parent_service().full_name(), method.name()),
        input: method.input(),
        has_stream: method.is_server_streaming(),
        wants_stream: method.is_client_streaming(),
    };
    let pattern = Pattern::new(&template)?;
    for field in pattern.fields() {
        let found = field_at(&call.input, field);
        let found = found.ok_or_else(|| format!("the path names {field}, which is no field"))?;
        if found.is_list() || found.is_map() {
            return Err(format!("the path names {field}, which is not one value"));
        }
    }
    let field_of = |message: &MessageDescriptor, name: &str, what: &str| {
        let field = message.get_field_by_name(name);
        field.ok_or_else(|| format!("{what} names {name}, which is no field"))
    };
    let body = match text(rule, "body").as_str() {
        "" => BodyOf::Nothing,
        "*" => BodyOf::All,
        name => BodyOf::Field(field_of(&call.input, name, "body")?),
    };
    let message = method.output();
    let field = match text(rule, "response_body").as_str() {
        "" | "*" => None,
        name => Some(field_of(&message, name, "response_body")?),
    };
    Ok(Binding {
        method: Method::from_bytes(verb.as_bytes()).map_err(|_| format!("{verb} is no method"))?,
        pattern,
        call,
        body,
        shape: Shape { message, field },
    })
}

/// The method and the template of a rule.
fn target(rule: &DynamicMessage) -> Option<(String, String)> {
    for name in ["get", "put", "post", "delete", "patch"] {
        if rule.has_field_by_name(name) {
            return Some((name.to_ascii_uppercase(), text(rule, name)));
        }
    }
    let custom = rule.get_field_by_name("custom")?;
    let custom = custom.as_message()?;
    let verb = text(custom, "kind");
    (!verb.is_empty()).then(|| (verb, text(custom, "path")))
}

fn text(message: &DynamicMessage, name: &str) -> String {
    let value = message.get_field_by_name(name);
    value
        .as_deref()
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned()
}

/// A field by its path, such as `user.name`.
pub(super) fn field_at(message: &MessageDescriptor, path: &str) -> Option<FieldDescriptor> {
    let (mut message, mut found) = (message.clone(), None);
    for name in path.split('.') {
        let field = match found.take() {
            None => field_named(&message, name)?,
            Some(field) => {
                message = inner(&field)?;
                field_named(&message, name)?
            }
        };
        found = Some(field);
    }
    found
}

/// By its name in the file or in JSON.
pub(super) fn field_named(message: &MessageDescriptor, name: &str) -> Option<FieldDescriptor> {
    let field = message.get_field_by_name(name);
    field.or_else(|| message.get_field_by_json_name(name))
}

fn inner(field: &FieldDescriptor) -> Option<MessageDescriptor> {
    match field.kind() {
        Kind::Message(message) if !field.is_list() && !field.is_map() => Some(message),
        _ => None,
    }
}

impl PartialEq for Api {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl Eq for Api {}

impl fmt::Debug for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Api").finish_non_exhaustive()
    }
}
