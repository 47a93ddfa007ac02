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

    /// Tells that something went as it should.
    pub fn normal(&self, about: ObjectReference, reason: &str, action: &str, note: &str) {
        self.publish(EventType::Normal, about, reason, action, note);
    }

    /// Tells that something needs attention.
    pub fn warning(&self, about: ObjectReference, reason: &str, action: &str, note: &str) {
        self.publish(EventType::Warning, about, reason, action, note);
    }

    fn publish(&self, type_: EventType, about: ObjectReference, reason: &str, action: &str, note: &str) {
        let recorder = self.recorder.clone();
        let event = Event {
            type_,
            reason: reason.to_owned(),
            note: Some(note.chars().take(1000).collect()),
            action: action.to_owned(),
            secondary: None,
        };
        tokio::spawn(async move {
            if let Err(error) = recorder.publish(&event, &about).await {
                tracing::debug!(%error, reason = %event.reason, "an event was not published");
            }
        });
    }
}
