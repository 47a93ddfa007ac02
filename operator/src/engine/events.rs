//! Events that users see on their objects (`kubectl describe`), once for each
//! transition. They are told, never read: losing one loses nothing.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};

use super::api::Writer;

/// Publishes events.
pub struct Events {
    recorder: Recorder,
}

impl Events {
    /// Publishes as the operator's process `identity`.
    pub fn new(writer: &Writer, identity: String) -> Self {
        let reporter =
            Reporter { controller: vingt_crds::names::OPERATOR.to_owned(), instance: Some(identity) };
        Self { recorder: Recorder::new(writer.client().clone(), reporter) }
    }

    /// Tells it.
    pub fn publish(&self, announcement: Announcement) {
        let recorder = self.recorder.clone();
        tokio::spawn(async move {
            let Announcement { event, about } = announcement;
            if let Err(error) = recorder.publish(&event, &about).await {
                tracing::debug!(%error, reason = %event.reason, "an event was not published");
            }
        });
    }
}

/// Something to be told of an object.
pub struct Announcement {
    event: Event,
    about: ObjectReference,
}

impl Announcement {
    /// Something went as it should.
    pub fn normal(about: ObjectReference, reason: &str, action: &str, note: String) -> Self {
        Self::new(EventType::Normal, about, reason, action, note)
    }

    /// Something needs attention.
    pub fn warning(about: ObjectReference, reason: &str, action: &str, note: String) -> Self {
        Self::new(EventType::Warning, about, reason, action, note)
    }

    fn new(type_: EventType, about: ObjectReference, reason: &str, action: &str, note: String) -> Self {
        let event = Event {
            type_,
            reason: reason.to_owned(),
            note: Some(short(note)),
            action: action.to_owned(),
            secondary: None,
        };
        Self { event, about }
    }
}

/// At most as many bytes as the API takes.
fn short(mut note: String) -> String {
    const MAX_BYTES: usize = 1000;
    let end = (0..=MAX_BYTES.min(note.len())).rev().find(|end| note.is_char_boundary(*end)).unwrap_or(0);
    note.truncate(end);
    note
}
