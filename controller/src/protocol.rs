//! The shape of mediasoup protocol messages (`spec: protocol.md`): checks of what clients send,
//! with v2's texts. Pure functions.

use std::net::{IpAddr, SocketAddr};

use broth_ipc::body::{DtlsParameters, DtlsRole, Fingerprint, WebRtcTransportOptions};
use broth_ipc::rtp::Profile;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use crate::error::{Error, Result};
use crate::sockets::Prefer;

/// Deepest nesting of what is passed on to a worker, which gives up at 128 levels.
const NESTING_MAX: usize = 32;

/// Members of a message.
pub(crate) type Members = Map<String, Value>;

/// Takes a request apart into method and members.
pub(crate) fn open_request(request: Value) -> Result<(String, Members)> {
    let Value::Object(members) = request else {
        return Err(Error::wrong_type("wrong request Object"));
    };
    if members.get("notification").is_some_and(is_truthy) {
        return Err(Error::wrong_type("not a request"));
    }
    match members.get("method").and_then(Value::as_str) {
        Some(method) if !method.is_empty() => Ok((method.into(), members)),
        _ => Err(Error::wrong_type("wrong/missing request method")),
    }
}

/// Takes a notification apart into method and members.
pub(crate) fn open_notification(notification: Value) -> Result<(String, Members)> {
    let Value::Object(members) = notification else {
        return Err(Error::wrong_type("wrong notification Object"));
    };
    if members.get("notification") != Some(&Value::Bool(true)) {
        return Err(Error::wrong_type("not a notification"));
    }
    match members.get("method").and_then(Value::as_str) {
        Some(method) if !method.is_empty() => Ok((method.into(), members)),
        _ => Err(Error::wrong_type("wrong/missing notification method")),
    }
}

/// A notification for a client.
pub(crate) fn notification(method: &str, members: Value) -> Value {
    let mut message = json!({ "method": method, "target": "peer", "notification": true });
    if let (Value::Object(message), Value::Object(members)) = (&mut message, members) {
        message.extend(members);
    }
    message
}

/// Adds `appData` if there is any.
pub(crate) fn with_app_data(mut members: Value, app_data: Option<&Value>) -> Value {
    if let Some(app_data) = app_data {
        members["appData"] = app_data.clone();
    }
    members
}

/// What JavaScript takes for true.
fn is_truthy(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(flag) => *flag,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(_) | Value::Object(_) => true,
    }
}

/// The application's data in a message.
pub(crate) fn app_data(members: &mut Members) -> Option<Value> {
    members.remove("appData")
}

/// A text that must be there and not empty.
pub(crate) fn text(members: &Members, member: &str) -> Result<String> {
    match members.get(member).and_then(Value::as_str) {
        Some(text) if !text.is_empty() => Ok(text.into()),
        _ => Err(Error::wrong_type(format!("{member} must be a string"))),
    }
}

/// A flag; absent is false.
pub(crate) fn flag(members: &Members, member: &str) -> Result<bool> {
    match members.get(member) {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(flag)) => Ok(*flag),
        Some(_) => Err(Error::wrong_type(format!("{member} must be a boolean"))),
    }
}

/// An id that must be there.
pub(crate) fn id(members: &Members, member: &str) -> Result<u32> {
    optional_id(members, member)?
        .ok_or_else(|| Error::wrong_type(format!("{member} must be a number")))
}

/// An id that may be absent or 0, which lets the server choose one.
pub(crate) fn optional_id(members: &Members, member: &str) -> Result<Option<u32>> {
    let id = match members.get(member) {
        None | Some(Value::Null) => return Ok(None),
        Some(value) => value.as_f64(),
    };
    match id {
        Some(id) if id.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(&id) => {
            Ok(Some(id as u32).filter(|id| *id != 0))
        }
        _ => Err(Error::wrong_type(format!("{member} must be a number"))),
    }
}

/// A profile that can be wished for; absent is `None`.
pub(crate) fn profile(members: &Members, member: &str) -> Result<Option<Profile>> {
    match members.get(member) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => value
            .as_str()
            .and_then(Profile::from_name)
            .filter(|profile| *profile != Profile::None)
            .map(Some)
            .ok_or_else(|| Error::wrong_type(format!("invalid {member}"))),
    }
}

/// A member of a known shape.
pub(crate) fn shaped<T: DeserializeOwned>(members: &mut Members, member: &str) -> Result<T> {
    let value = members.remove(member).unwrap_or_default();
    if !value.is_object() {
        return Err(Error::wrong_type(format!("{member} must be an object")));
    }
    if is_deeper(&value, NESTING_MAX) {
        return Err(Error::wrong_type(format!("{member} is nested too deep")));
    }
    serde_json::from_value(value)
        .map_err(|error| Error::wrong_type(format!("wrong {member}: {error}")))
}

/// Whether a value is nested deeper than `levels`. Looks no deeper than that.
fn is_deeper(value: &Value, levels: usize) -> bool {
    let Some(left) = levels.checked_sub(1) else {
        return true;
    };
    match value {
        Value::Array(elements) => elements.iter().any(|inner| is_deeper(inner, left)),
        Value::Object(members) => members.values().any(|inner| is_deeper(inner, left)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

/// The direction of a transport, from the client's point of view; absent is neither.
pub(crate) fn direction(members: &Members) -> Result<String> {
    match members.get("direction") {
        None | Some(Value::Null) => Ok(String::new()),
        Some(Value::String(direction)) if matches!(direction.as_str(), "send" | "recv") => {
            Ok(direction.clone())
        }
        Some(_) => Err(Error::wrong_type("invalid direction")),
    }
}

/// `options` of `createTransport`; whatever is no Boolean counts as absent.
pub(crate) fn transport_options(members: &Members) -> WebRtcTransportOptions {
    let flag = |name: &str, default: bool| {
        let given = members.get("options").and_then(|options| options.get(name));
        given.and_then(Value::as_bool).unwrap_or(default)
    };
    WebRtcTransportOptions {
        udp: flag("udp", true),
        tcp: flag("tcp", true),
        prefer_ipv4: flag("preferIPv4", false),
        prefer_ipv6: flag("preferIPv6", false),
        prefer_udp: flag("preferUdp", false),
        prefer_tcp: flag("preferTcp", false),
        restore: None,
    }
}

/// A member that is there, as JavaScript sees it.
pub(crate) fn given<'m>(members: &'m Members, member: &str) -> Option<&'m Value> {
    members.get(member).filter(|value| is_truthy(value))
}

/// What a plain RTP transport is to be made of.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct PlainOptions {
    /// Where to send, if it is known already.
    pub(crate) remote: Option<SocketAddr>,
    /// Local address instead of the one listened on.
    pub(crate) local_ip: Option<IpAddr>,
    /// Which family while `remote` is not known.
    pub(crate) prefer: Prefer,
}

impl PlainOptions {
    /// Sends to `remote`.
    pub(crate) fn towards(remote: SocketAddr, local_ip: Option<IpAddr>) -> Self {
        Self {
            remote: Some(remote),
            local_ip,
            prefer: Prefer::default(),
        }
    }
}

/// `plainRtpParameters` of `createTransport`, and those of its `options` that matter.
pub(crate) fn plain_options(
    given: &Value,
    options: &WebRtcTransportOptions,
) -> Result<PlainOptions> {
    let Value::Object(remote) = given else {
        return Err(Error::wrong_type("plainRtpParameters must be an object"));
    };
    let is_known = remote.get("ip").is_some_and(|ip| !ip.is_null());
    Ok(PlainOptions {
        remote: is_known.then(|| remote_parameters(given)).transpose()?,
        local_ip: None,
        prefer: Prefer {
            ipv4: options.prefer_ipv4,
            ipv6: options.prefer_ipv6,
        },
    })
}

/// `plainRtpParameters` of a client: where to send.
pub(crate) fn remote_parameters(given: &Value) -> Result<SocketAddr> {
    let missing = |member| Error::wrong_type(format!("missing data.{member}"));
    let ip = given.get("ip").and_then(Value::as_str);
    let ip = ip.ok_or_else(|| missing("ip"))?;
    let port = given.get("port").and_then(Value::as_u64);
    let port = port.and_then(|port| u16::try_from(port).ok());
    let port = port.filter(|port| *port != 0);
    let port = port.ok_or_else(|| missing("port"))?;
    let parsed = ip.parse::<IpAddr>();
    let ip = parsed.map_err(|_| Error::other(format!("invalid destination IP '{ip}'")))?;
    Ok(SocketAddr::new(ip, port))
}

/// `dtlsParameters` of a client.
pub(crate) fn dtls_parameters(given: &Value) -> Result<DtlsParameters> {
    let Some(given_fingerprints) = given.get("fingerprints").and_then(Value::as_array) else {
        return Err(Error::wrong_type("missing data.fingerprints"));
    };
    let mut fingerprints = Vec::new();
    for fingerprint in given_fingerprints {
        if !fingerprint.is_object() {
            return Err(Error::wrong_type("wrong fingerprint"));
        }
        let part = |name| fingerprint.get(name).and_then(Value::as_str);
        let (Some(algorithm), Some(value)) = (part("algorithm"), part("value")) else {
            return Err(Error::wrong_type(
                "missing data.fingerprint.algorithm and/or data.fingerprint.value",
            ));
        };
        fingerprints.push(Fingerprint {
            algorithm: algorithm.into(),
            value: value.into(),
        });
    }
    let role = match given.get("role") {
        None | Some(Value::Null) => DtlsRole::Auto,
        Some(role) => serde_json::from_value(role.clone())
            .map_err(|_| Error::wrong_type("invalid remote role"))?,
    };
    Ok(DtlsParameters { role, fingerprints })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_checked_in_v2s_order() {
        let rows = [
            (json!(null), Err("wrong request Object")),
            (json!("x"), Err("wrong request Object")),
            (json!([]), Err("wrong request Object")),
            (
                json!({ "notification": 1, "method": "join" }),
                Err("not a request"),
            ),
            (json!({ "method": 7 }), Err("wrong/missing request method")),
            (json!({}), Err("wrong/missing request method")),
            (
                json!({ "notification": false, "method": "join" }),
                Ok("join"),
            ),
            (json!({ "method": "anything" }), Ok("anything")),
        ];
        for (request, expected) in rows {
            let opened = open_request(request.clone()).map(|(method, _)| method);
            let opened = opened.map_err(|error| error.to_string());
            assert_eq!(
                opened.as_deref().map_err(String::as_str),
                expected,
                "{request}"
            );
        }
    }

    #[test]
    fn notifications_are_checked_in_v2s_order() {
        let rows = [
            (json!(null), Err("wrong notification Object")),
            (json!({ "method": "leave" }), Err("not a notification")),
            (
                json!({ "method": "leave", "notification": 1 }),
                Err("not a notification"),
            ),
            (
                json!({ "notification": true }),
                Err("wrong/missing notification method"),
            ),
            (
                json!({ "notification": true, "method": "leave" }),
                Ok("leave"),
            ),
        ];
        for (notification, expected) in rows {
            let opened = open_notification(notification.clone()).map(|(method, _)| method);
            let opened = opened.map_err(|error| error.to_string());
            assert_eq!(
                opened.as_deref().map_err(String::as_str),
                expected,
                "{notification}"
            );
        }
    }

    #[test]
    fn ids_are_whole_numbers_of_32_bits() {
        let rows = [
            (json!({ "id": 7 }), Ok(Some(7))),
            (json!({ "id": 7.0 }), Ok(Some(7))),
            (json!({ "id": u32::MAX }), Ok(Some(u32::MAX))),
            (json!({ "id": 0 }), Ok(None)),
            (json!({}), Ok(None)),
            (json!({ "id": "5" }), Err(())),
            (json!({ "id": -1 }), Err(())),
            (json!({ "id": 1.5 }), Err(())),
            (json!({ "id": 4_294_967_296_u64 }), Err(())),
        ];
        for (message, expected) in rows {
            let members = message.as_object().unwrap();
            assert_eq!(
                optional_id(members, "id").map_err(drop),
                expected,
                "{message}"
            );
        }
    }

    #[test]
    fn dtls_parameters_have_v2s_errors() {
        let good = json!({ "algorithm": "sha-256", "value": "AB" });
        let rows = [
            (json!({ "role": "client" }), "missing data.fingerprints"),
            (json!({ "fingerprints": ["x"] }), "wrong fingerprint"),
            (
                json!({ "fingerprints": [{ "algorithm": "sha-1" }] }),
                "missing data.fingerprint.algorithm and/or data.fingerprint.value",
            ),
            (
                json!({ "role": "boss", "fingerprints": [good] }),
                "invalid remote role",
            ),
        ];
        for (given, expected) in rows {
            let error = dtls_parameters(&given).unwrap_err();
            assert_eq!(error.to_string(), expected);
        }
        let parsed = dtls_parameters(&json!({ "fingerprints": [good] })).unwrap();
        assert_eq!(parsed.role, DtlsRole::Auto);
    }

    #[test]
    fn a_remote_address_is_an_ip_and_a_port() {
        let rows = [
            (json!({ "ip": "127.0.0.1", "port": 5004 }), "127.0.0.1:5004"),
            (json!({ "ip": "::1", "port": 5004 }), "[::1]:5004"),
            (json!({}), "missing data.ip"),
            (json!({ "port": 5004 }), "missing data.ip"),
            (json!({ "ip": 7, "port": 5004 }), "missing data.ip"),
            (json!({ "ip": "127.0.0.1" }), "missing data.port"),
            (json!({ "ip": "127.0.0.1", "port": 0 }), "missing data.port"),
            (
                json!({ "ip": "127.0.0.1", "port": 65536 }),
                "missing data.port",
            ),
            (
                json!({ "ip": "127.0.0.1", "port": "1" }),
                "missing data.port",
            ),
            (
                json!({ "ip": "zz", "port": 5004 }),
                "invalid destination IP 'zz'",
            ),
            (json!(true), "missing data.ip"),
        ];
        for (given, expected) in rows {
            let remote = remote_parameters(&given);
            let text = remote.map_or_else(|error| error.to_string(), |at| at.to_string());
            assert_eq!(text, expected, "{given}");
        }
    }

    #[test]
    fn a_plain_transport_may_learn_its_remote_address_later() {
        let options = WebRtcTransportOptions::default();
        let remote = |given| plain_options(&given, &options).map(|plain| plain.remote);
        assert_eq!(remote(json!({})).unwrap(), None);
        assert_eq!(remote(json!({ "ip": null, "port": 5004 })).unwrap(), None);
        let known = remote(json!({ "ip": "127.0.0.1", "port": 5004 })).unwrap();
        assert_eq!(known, Some(([127, 0, 0, 1], 5004).into()));
        for wrong in [
            json!(true),
            json!("127.0.0.1"),
            json!({ "ip": "127.0.0.1" }),
        ] {
            assert!(remote(wrong.clone()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn nesting_is_limited() {
        let nested = |depth| (0..depth).fold(json!(1), |inner, _| json!([inner]));
        for (depth, expected) in [(0, false), (3, false), (4, true), (5, true), (99, true)] {
            assert_eq!(is_deeper(&nested(depth), 4), expected, "{depth}");
            assert_eq!(
                is_deeper(&json!({ "a": nested(depth) }), 5),
                expected,
                "{depth}"
            );
        }
    }

    #[test]
    fn a_direction_is_send_or_recv_or_absent() {
        let rows = [
            (json!({ "direction": "send" }), Some("send")),
            (json!({ "direction": "recv" }), Some("recv")),
            (json!({}), Some("")),
            (json!({ "direction": null }), Some("")),
            (json!({ "direction": "up" }), None),
            (json!({ "direction": 7 }), None),
        ];
        for (message, expected) in rows {
            let direction = direction(message.as_object().unwrap()).ok();
            assert_eq!(direction.as_deref(), expected, "{message}");
        }
    }

    #[test]
    fn transport_options_that_are_no_booleans_count_as_absent() {
        let message = json!({ "options": { "udp": "no", "tcp": false, "preferIPv6": true } });
        let options = transport_options(message.as_object().unwrap());
        assert!(options.udp && !options.tcp && options.prefer_ipv6);
        assert_eq!(
            transport_options(&Members::new()),
            WebRtcTransportOptions::default()
        );
    }
}
