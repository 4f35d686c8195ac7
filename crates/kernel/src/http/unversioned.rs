//! Operations that are served without a version in their path as well.

use utoipa::openapi::OpenApi;

/// Gives operations that are served at other paths too ids of their own: theirs with `_unversioned`.
pub fn rename_unversioned(document: &mut OpenApi) {
    for item in document.paths.paths.values_mut() {
        let operations = [
            &mut item.get,
            &mut item.post,
            &mut item.put,
            &mut item.patch,
            &mut item.delete,
        ];
        for operation in operations.into_iter().flatten() {
            if let Some(id) = &mut operation.operation_id {
                id.push_str("_unversioned");
            }
        }
    }
}
