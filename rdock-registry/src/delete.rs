//! Manifests and tags are taken out of a registry.

use crate::auth::{Access, Rights};
use crate::config::RegistryConfig;
use crate::error::Result;
use crate::manifests;
use crate::session::{Remarks, Session};
use crate::transport::{Request, Transport, Verb};
use rdock_image::Reference;

/// Deletes the manifest of a digest, or the tag of a name without one.
pub(crate) async fn delete(
    config: &RegistryConfig,
    transport: &Transport,
    reference: &Reference,
) -> Result<()> {
    let endpoint = config.own(reference)?;
    let name = format!("{}/{}", reference.domain(), reference.path());
    let access = Access::to(&endpoint.repository, Rights::Delete);
    let session = Session::open(config, transport, endpoint, &name, access, Remarks::new(|_| {})).await?;
    let path = format!(
        "{}/manifests/{}",
        session.endpoint.repository,
        manifests::wanted(reference)
    );
    let request = Request::new(Verb::Delete);
    let what = format!("the deletion of {}", reference.familiar());
    session
        .ask(&path, &request, &what, Some(reference))
        .await
        .map(drop)
}
