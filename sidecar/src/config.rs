//! The sidecar's configuration: read once, from the environment.
//!
//! It holds identity only. What is consumed, and how, is asked of the broker while running.

use std::net::{Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

use capstan_api::workload::{OBJECT_NAME_MAX, REPORT_EVERY, Workload};
use capstan_api::{Client, Name, SIDECAR_ADMIN_PORT};

use crate::gateway::Settings;

/// Address of the broker, such as `http://capstan-default.shop.svc`; required.
pub const BROKER_URL: &str = "CAPSTAN_BROKER_URL";
/// Namespace of the pod; required.
pub const NAMESPACE: &str = "CAPSTAN_NAMESPACE";
/// Workload that the pod belongs to, such as `Deployment/shop`; required.
pub const WORKLOAD: &str = "CAPSTAN_WORKLOAD";
/// Name of the pod; required.
pub const POD: &str = "CAPSTAN_POD";
/// Port of probes, hooks and metrics, on all addresses; 9798 when absent.
pub const ADMIN_PORT: &str = "CAPSTAN_ADMIN_PORT";
/// Longest drain in whole seconds, 1 to 43,200; 25 when absent, to fit into the default grace period of a pod (30 s).
pub const DRAIN_SECONDS: &str = "CAPSTAN_DRAIN_SECONDS";
/// Port of the producer gateway, on localhost alone; 9797 when absent.
pub const GATEWAY_PORT: &str = "CAPSTAN_GATEWAY_PORT";
/// How long the gateway holds a request while the broker is away, in whole seconds, 1 to 120; 25 when absent.
pub const GATEWAY_HOLD_SECONDS: &str = "CAPSTAN_GATEWAY_HOLD_SECONDS";
/// Bytes of bodies that the gateway holds at once, 65,536 to 1,073,741,824; 16,777,216 when absent.
pub const GATEWAY_HOLD_BYTES: &str = "CAPSTAN_GATEWAY_HOLD_BYTES";

/// The longest drain unless configured.
pub const DRAIN_TIMEOUT_DEFAULT: Duration = Duration::from_secs(25);
/// How long an application may take to start before it is told of, unless configured.
const START_GRACE_DEFAULT: Duration = Duration::from_secs(30);
/// How long the last settles may take after the calls were cut.
pub(crate) const LAST_SETTLES: Duration = Duration::from_secs(3);
const DRAIN_SECONDS_MAX: u64 = 43_200;
/// Far less than the time for which a broker knows a key: who gets a 503 has time left to send again with it.
const HOLD_SECONDS_MAX: u64 = 120;
const HOLD_BYTES_MIN: u64 = 64 << 10;
const HOLD_BYTES_MAX: u64 = 1 << 30;

/// Who this sidecar is and where its broker is.
#[derive(Debug, Clone)]
pub struct Config {
    /// Address of the broker's HTTP API.
    pub broker_url: String,
    pub namespace: Name,
    pub workload: Workload,
    /// The pod's name, which the broker shows and logs.
    pub pod: String,
    /// Where probes, hooks and metrics are served (port 0 takes any); nowhere when absent.
    pub admin: Option<SocketAddr>,
    /// The producer gateway; none when absent.
    pub gateway: Option<Settings>,
    /// How long calls may go on after a drain began; then they are cut and their messages released.
    pub drain_timeout: Duration,
    /// When the broker is told of the application.
    pub reporting: Reporting,
}

/// When the broker is told whether the application takes batches, beside each change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reporting {
    /// Time between two reports of the same, and between two looks whether the application still listens; by default
    /// [`REPORT_EVERY`], and never more, since a broker forgets who says nothing.
    pub every: Duration,
    /// So long after the sidecar's start, nothing is told of an application that never listened; by default 30 s.
    pub grace: Duration,
}

impl Default for Reporting {
    fn default() -> Self {
        Self { every: REPORT_EVERY, grace: START_GRACE_DEFAULT }
    }
}

/// Why the environment is no configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    #[error("{name} is not set: set it to {meaning}")]
    Missing { name: &'static str, meaning: &'static str },
    #[error("{name} is not valid: {reason}")]
    Invalid { name: &'static str, reason: String },
}

impl Config {
    /// A configuration without ports, as a program that embeds a sidecar wants it.
    #[must_use]
    pub fn new(
        broker_url: impl Into<String>,
        namespace: Name,
        workload: Workload,
        pod: impl Into<String>,
    ) -> Self {
        let (broker_url, pod) = (broker_url.into(), pod.into());
        Self {
            broker_url,
            namespace,
            workload,
            pod,
            admin: None,
            gateway: None,
            drain_timeout: DRAIN_TIMEOUT_DEFAULT,
            reporting: Reporting::default(),
        }
    }

    /// Reads the configuration; `read` looks up a variable, as [`std::env::var`] does.
    ///
    /// # Errors
    /// [`ConfigError`] names the first variable that is missing or wrong.
    pub fn from_env(read: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let required = |name, meaning| read(name).ok_or(ConfigError::Missing { name, meaning });
        let broker_url =
            required(BROKER_URL, "the broker's address, such as http://capstan-default.shop.svc")?;
        Client::new(&broker_url).map_err(|e| invalid(BROKER_URL, &e))?;
        let namespace = required(NAMESPACE, "the pod's namespace")?;
        let namespace = namespace.parse().map_err(|e| invalid(NAMESPACE, &e))?;
        let workload = required(WORKLOAD, "the pod's workload, such as Deployment/shop")?;
        let workload = workload.parse().map_err(|e| invalid(WORKLOAD, &e))?;
        let pod = pod(required(POD, "the pod's name")?)?;
        let (port, gateway) = (admin_port(&read)?, gateway(&read)?);
        if gateway.port == port {
            return Err(invalid(GATEWAY_PORT, &format!("{port} is {ADMIN_PORT} too: use another port")));
        }
        let admin = Some(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)));
        let drain_timeout = Self::drain_timeout_from_env(&read)?;
        Ok(Self {
            admin,
            gateway: Some(gateway),
            drain_timeout,
            ..Self::new(broker_url, namespace, workload, pod)
        })
    }

    /// Reads [`Config::drain_timeout`] alone, for the command `drain`.
    pub(crate) fn drain_timeout_from_env(
        read: impl Fn(&str) -> Option<String>,
    ) -> Result<Duration, ConfigError> {
        let seconds = within(DRAIN_SECONDS, read, 1..=DRAIN_SECONDS_MAX)?;
        Ok(seconds.map_or(DRAIN_TIMEOUT_DEFAULT, Duration::from_secs))
    }
}

fn gateway(read: impl Fn(&str) -> Option<String>) -> Result<Settings, ConfigError> {
    let default = Settings::default();
    let seconds = within(GATEWAY_HOLD_SECONDS, &read, 1..=HOLD_SECONDS_MAX)?;
    let bytes = within(GATEWAY_HOLD_BYTES, &read, HOLD_BYTES_MIN..=HOLD_BYTES_MAX)?;
    Ok(Settings {
        port: port(GATEWAY_PORT, default.port, read)?,
        hold: seconds.map_or(default.hold, Duration::from_secs),
        hold_bytes: bytes.and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(default.hold_bytes),
    })
}

/// Reads the admin port alone, for the command `drain`.
///
/// # Errors
/// [`ConfigError::Invalid`] when it is no port.
pub fn admin_port(read: impl Fn(&str) -> Option<String>) -> Result<u16, ConfigError> {
    port(ADMIN_PORT, SIDECAR_ADMIN_PORT, read)
}

fn port(name: &'static str, default: u16, read: impl Fn(&str) -> Option<String>) -> Result<u16, ConfigError> {
    let port = number(name, read)?.unwrap_or(u64::from(default));
    u16::try_from(port)
        .ok()
        .filter(|port| *port > 0)
        .ok_or_else(|| invalid(name, &format!("{port} is not a port: use 1 to {}", u16::MAX)))
}

fn within(
    name: &'static str,
    read: impl Fn(&str) -> Option<String>,
    range: RangeInclusive<u64>,
) -> Result<Option<u64>, ConfigError> {
    match number(name, read)? {
        Some(number) if !range.contains(&number) => {
            Err(invalid(name, &format!("{number} is not {} to {}", range.start(), range.end())))
        }
        number => Ok(number),
    }
}

fn number(name: &'static str, read: impl Fn(&str) -> Option<String>) -> Result<Option<u64>, ConfigError> {
    let Some(text) = read(name) else { return Ok(None) };
    text.parse().map(Some).map_err(|_| invalid(name, &format!("{text:?} is not a whole number")))
}

fn pod(text: String) -> Result<String, ConfigError> {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.';
    if !text.is_empty() && text.len() <= OBJECT_NAME_MAX && text.bytes().all(allowed) {
        return Ok(text);
    }
    Err(invalid(POD, &format!("a pod's name is 1 to {OBJECT_NAME_MAX} of a-z, 0-9, '-' and '.'")))
}

fn invalid(name: &'static str, reason: &impl ToString) -> ConfigError {
    ConfigError::Invalid { name, reason: reason.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: [(&str, &str); 4] = [
        (BROKER_URL, "http://127.0.0.1:9796"),
        (NAMESPACE, "shop"),
        (WORKLOAD, "Deployment/shop"),
        (POD, "shop-7d9f-x2x5z"),
    ];

    fn read_with(changes: &[(&str, Option<&str>)]) -> Result<Config, ConfigError> {
        Config::from_env(|name| {
            let changed = changes.iter().find(|(changed, _)| *changed == name).map(|(_, value)| *value);
            let good = GOOD.iter().find(|(good, _)| *good == name).map(|(_, value)| *value);
            changed.unwrap_or(good).map(str::to_owned)
        })
    }

    #[test]
    fn defaults_are_filled_in() {
        let config = read_with(&[]).unwrap();
        assert_eq!(config.admin.unwrap().port(), 9798);
        assert_eq!(config.drain_timeout, Duration::from_secs(25));
        assert_eq!(config.workload.to_string(), "Deployment/shop");
        assert_eq!(config.gateway, Some(Settings { port: 9797, ..Settings::default() }));
        let config = read_with(&[(ADMIN_PORT, Some("1234")), (DRAIN_SECONDS, Some("50"))]).unwrap();
        assert_eq!((config.admin.unwrap().port(), config.drain_timeout.as_secs()), (1234, 50));
        let changes = [(GATEWAY_PORT, "4321"), (GATEWAY_HOLD_SECONDS, "120"), (GATEWAY_HOLD_BYTES, "65536")];
        let config = read_with(&changes.map(|(name, value)| (name, Some(value)))).unwrap();
        let gateway = Settings { port: 4321, hold: Duration::from_secs(120), hold_bytes: 65_536 };
        assert_eq!(config.gateway, Some(gateway));
    }

    #[test]
    fn what_is_missing_is_named_with_its_meaning() {
        for name in [BROKER_URL, NAMESPACE, WORKLOAD, POD] {
            let error = read_with(&[(name, None)]).unwrap_err();
            assert!(
                matches!(error, ConfigError::Missing { name: missing, .. } if missing == name),
                "{error}"
            );
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (name, value) in [
            (BROKER_URL, "capstan:80"),
            (NAMESPACE, "Shop"),
            (WORKLOAD, "Pod/shop"),
            (POD, "shop\n"),
            (POD, ""),
            (ADMIN_PORT, "0"),
            (ADMIN_PORT, "65536"),
            (ADMIN_PORT, "http"),
            (DRAIN_SECONDS, "0"),
            (DRAIN_SECONDS, "30s"),
            (GATEWAY_PORT, "0"),
            (GATEWAY_PORT, "9798"),
            (GATEWAY_HOLD_SECONDS, "0"),
            (GATEWAY_HOLD_SECONDS, "121"),
            (GATEWAY_HOLD_BYTES, "1000"),
            (GATEWAY_HOLD_BYTES, "16Mi"),
        ] {
            let error = read_with(&[(name, Some(value))]).unwrap_err();
            assert!(
                matches!(error, ConfigError::Invalid { name: wrong, .. } if wrong == name),
                "{name}: {error}"
            );
        }
    }
}
