//! Descriptors of services that speak gRPC.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use auspex_kernel::config::ConfigError;

use super::{Key, ServicePlan};
use crate::config::RouteConfig;
use crate::transcode::Api;
use crate::upstream::Protocol;

const FILE_BYTES_MAX: u64 = 16 << 20;

/// What a route leads to, where its service speaks gRPC.
///
/// # Errors
/// [`ConfigError::wrong`] with the whole key.
pub(super) fn api(
    at: &Key,
    route: &RouteConfig,
    service: &ServicePlan,
) -> Result<Option<Arc<Api>>, ConfigError> {
    let Some(transcode) = &route.transcode else {
        return Ok(None);
    };
    if service.protocol != Protocol::Http2 {
        let reason = "needs a service that speaks gRPC; set its protocol to \"http2\"";
        return Err(at.wrong("transcode", reason));
    }
    let file = &transcode.descriptor;
    let wrong = |why: String| {
        let reason = format!("names {}, which {why}", file.display());
        at.wrong("transcode.descriptor", reason)
    };
    let bytes = read(file).map_err(wrong)?;
    let api = Api::new(bytes.into()).map_err(wrong)?;
    Ok(Some(Arc::new(api)))
}

fn read(file: &Path) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let read = File::open(file).and_then(|file| {
        let mut limited = file.take(FILE_BYTES_MAX + 1);
        limited.read_to_end(&mut bytes)
    });
    match read {
        Ok(_) if bytes.len() as u64 > FILE_BYTES_MAX => {
            Err(format!("is longer than {FILE_BYTES_MAX} bytes"))
        }
        Ok(_) => Ok(bytes),
        Err(error) => Err(format!(
            "cannot be read: {error}; make it by protoc --include_imports --descriptor_set_out=FILE"
        )),
    }
}

#[cfg(test)]
mod tests {
    use crate::plan::{LeadsTo, Plan};

    fn plan(descriptor: &str, more: &str) -> Result<Plan, auspex_kernel::config::ConfigError> {
        plan_by("http2", descriptor, more)
    }

    fn plan_by(
        protocol: &str,
        descriptor: &str,
        more: &str,
    ) -> Result<Plan, auspex_kernel::config::ConfigError> {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/grpc");
        Plan::of(&format!(
            "[gateway.services.scores]\nendpoints = [\"http://127.0.0.1:9001\"]\nprotocol = \"{protocol}\"\n\
             [[gateway.routes]]\npath = \"/v1/{{*rest}}\"\nservice = \"scores\"\npublic = true\n\
             transcode = {{ descriptor = \"{folder}/{descriptor}\" }}\n{more}\n"
        ))
    }

    #[test]
    fn a_route_may_lead_to_calls() {
        let route = |plan: Plan| plan.routes.into_iter().next().expect("a route");
        let one = route(plan("scores.binpb", "").expect("valid"));
        assert!(matches!(one.leads_to, LeadsTo::Calls(..)));
        // What has not changed lives on.
        assert_eq!(one, route(plan("scores.binpb", "").expect("valid")));
    }

    #[test]
    fn what_is_wrong_is_named_by_its_key() {
        for (descriptor, why) in [
            ("none.binpb", "protoc --include_imports"),
            ("", "cannot be read"),
            ("imports.binpb", "protoc --include_imports"),
            ("scores.proto", "is no set of descriptors"),
        ] {
            let error = plan(descriptor, "").expect_err(descriptor).to_string();
            assert!(
                error.contains("gateway.routes[0].transcode.descriptor\" "),
                "{error}"
            );
            assert!(error.contains(why), "{descriptor}: {error}");
        }
        let error = plan("scores.binpb", "cache = { ttl_s = 1 }").expect_err("both");
        assert!(
            error.to_string().contains("gateway.routes[0].cache\" "),
            "{error}"
        );
    }
}
