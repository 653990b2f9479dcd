//! The worker's messages in exactly the shapes of mediasoup v2's worker: members in alphabetical
//! order, and none of those that broth adds.

use serde_json::json;

use crate::message::{Notification, Response};

/// What broth adds to a notification.
const ADDED_TO_NOTIFICATIONS: [&str; 2] = ["routerId", "scope"];

impl Response {
    /// Serializes the answer for a mediasoup v2 controller.
    pub fn to_v2_payload(&self) -> serde_json::Result<Vec<u8>> {
        match &self.result {
            Ok(_) => self.to_payload(),
            Err(rejection) => serde_json::to_vec(&json!({
                "id": self.id,
                "rejected": true,
                "reason": rejection.reason,
            })),
        }
    }
}

impl Notification {
    /// Serializes the notification for a mediasoup v2 controller.
    pub fn to_v2_payload(&self) -> serde_json::Result<Vec<u8>> {
        let mut message = serde_json::to_value(self)?;
        if let Some(members) = message.as_object_mut() {
            members.retain(|name, _| !ADDED_TO_NOTIFICATIONS.contains(&name.as_str()));
        }
        serde_json::to_vec(&message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::body::IceState;
    use crate::{Event, Rejection, RouterId, Scope, Target};

    fn text(payload: serde_json::Result<Vec<u8>>) -> String {
        String::from_utf8(payload.unwrap()).unwrap()
    }

    #[test]
    fn recorded_answers_of_the_original_worker_are_met() {
        let accepted = Response {
            id: 1004,
            result: Ok(json!({})),
        };
        let rejected = Response {
            id: 1009,
            result: Err(Rejection::exists("Router already exists")),
        };
        let rows = [
            (accepted, r#"{"accepted":true,"data":{},"id":1004}"#),
            (
                rejected,
                r#"{"id":1009,"reason":"Router already exists","rejected":true}"#,
            ),
        ];
        for (response, expected) in rows {
            assert_eq!(text(response.to_v2_payload()), expected);
        }
    }

    #[test]
    fn recorded_notifications_of_the_original_worker_are_met() {
        let ice_state = IceState::Completed;
        let rows = [
            (Event::Close, r#"{"event":"close","targetId":33}"#),
            (
                Event::IceStateChange { ice_state },
                r#"{"data":{"iceState":"completed"},"event":"icestatechange","targetId":33}"#,
            ),
        ];
        for (event, expected) in rows {
            let notification = Notification {
                target: Target {
                    target_id: 33,
                    router_id: Some(RouterId(1)),
                    scope: Some(Scope::Transport),
                },
                event,
            };
            assert_eq!(text(notification.to_v2_payload()), expected);
        }
    }
}
