//! Images by their digests, as registries have them now.

use crate::model::Project;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use std::collections::BTreeMap;

/// Images that are asked for at the same time.
const PARALLEL: usize = 8;

/// The digest of an image could not be had.
#[derive(Debug, thiserror::Error)]
#[error("services.{service}.image: the digest of {image:?}")]
#[non_exhaustive]
pub struct DigestError<E: std::error::Error + 'static> {
    /// A service that runs it.
    pub service: String,
    /// The image, as the file has it.
    pub image: String,
    /// Why.
    pub source: E,
}

impl Project {
    /// Replaces the image of every service by the one that its name leads to now, so that the project stays the same
    /// when the name does not. `digest_of` is asked for each image once, as a registry's client answers it
    /// (`RegistryClient::resolve_digest`), for several at the same time. An image that has a digest already only loses
    /// its tag; a service that is built and names no image is left alone.
    ///
    /// # Errors
    /// [`DigestError`] for the first image without an answer; the project is as it was then.
    pub async fn resolve_image_digests<E, Answer>(
        &mut self,
        digest_of: impl Fn(String) -> Answer,
    ) -> Result<(), DigestError<E>>
    where
        E: std::error::Error + 'static,
        Answer: Future<Output = Result<String, E>>,
    {
        let mut wanted: BTreeMap<String, String> = BTreeMap::new();
        for (name, service) in &self.services {
            if let Some(image) = service.image.as_ref().filter(|image| !image.contains('@')) {
                wanted.entry(image.clone()).or_insert_with(|| name.clone());
            }
        }
        let questions = stream::iter(wanted).map(|(image, service)| {
            let answer = digest_of(image.clone());
            async move {
                match answer.await {
                    Ok(digest) => Ok((image, digest)),
                    Err(source) => Err(DigestError {
                        service,
                        image,
                        source,
                    }),
                }
            }
        });
        let found: BTreeMap<String, String> = questions.buffer_unordered(PARALLEL).try_collect().await?;
        for image in self
            .services
            .values_mut()
            .filter_map(|service| service.image.as_mut())
        {
            let digest = match image.rsplit_once('@') {
                Some((_, digest)) => Some(digest.to_owned()),
                None => found.get(image).cloned(),
            };
            if let Some(digest) = digest {
                *image = crate::pinned(image, &digest);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::{LoadOptions, Project};
    use std::cell::RefCell;

    #[tokio::test]
    async fn each_image_is_asked_for_once_and_a_failure_changes_nothing() {
        let text = "services: {a: {image: 'x:1'}, b: {image: 'x:1'}, c: {image: 'y@sha256:00'}, d: {image: z}, e: {build: .}}";
        let mut project = Project::load(&LoadOptions::new("/x").text(text)).unwrap();
        let before = project.to_json();
        let failed = project
            .resolve_image_digests(async |image: String| match &*image {
                "z" => Err(std::fmt::Error),
                _ => Ok("sha256:11".to_owned()),
            })
            .await
            .unwrap_err();
        assert_eq!(failed.to_string(), "services.d.image: the digest of \"z\"");
        assert_eq!(project.to_json(), before);
        let asked = RefCell::new(Vec::new());
        project
            .resolve_image_digests(async |image: String| {
                asked.borrow_mut().push(image);
                Ok::<_, std::fmt::Error>("sha256:11".to_owned())
            })
            .await
            .unwrap();
        assert_eq!(asked.into_inner(), ["x:1", "z"]);
        let images: Vec<_> = project
            .services
            .values()
            .map(|service| service.image.clone())
            .collect();
        let image = |text: &str| Some(text.to_owned());
        assert_eq!(
            images,
            [
                image("x:1@sha256:11"),
                image("x:1@sha256:11"),
                image("y@sha256:00"),
                image("z@sha256:11"),
                None
            ]
        );
    }
}
