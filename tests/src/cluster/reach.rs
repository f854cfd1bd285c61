//! Ways into pods and Services: directly where the test runs inside the cluster's network, else through the API server.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Mutex;

use k8s_openapi::api::core::v1::{Pod, Service};
use kube::Api;
use tokio::net::{TcpListener, TcpStream};

/// A port of a pod: namespace, name, port.
type Port = (String, String, u16);

pub(super) struct Reach {
    client: kube::Client,
    /// The local ports that lead into pods, when the cluster's network is elsewhere.
    forwards: Option<Mutex<BTreeMap<Port, SocketAddr>>>,
}

impl Reach {
    pub(super) fn new(client: kube::Client, is_elsewhere: bool) -> Self {
        Self { client, forwards: is_elsewhere.then(Mutex::default) }
    }

    /// `http://HOST:PORT` of a pod's port.
    pub(super) async fn pod(&self, namespace: &str, pod: &str, port: u16) -> Result<String, String> {
        if self.forwards.is_some() {
            return self.forwarded(namespace, pod, port).await;
        }
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let found = pods.get(pod).await.map_err(|error| error.to_string())?;
        let ip = found.status.and_then(|status| status.pod_ip);
        let ip = ip.ok_or_else(|| format!("pod {pod} has no address yet"))?;
        Ok(if ip.contains(':') { format!("http://[{ip}]:{port}") } else { format!("http://{ip}:{port}") })
    }

    /// `http://HOST` of a Service's port 80; `pod` and `port` are what stands behind it.
    pub(super) async fn service(
        &self,
        namespace: &str,
        service: &str,
        (pod, port): (&str, u16),
    ) -> Result<String, String> {
        if self.forwards.is_some() {
            return self.forwarded(namespace, pod, port).await;
        }
        let services: Api<Service> = Api::namespaced(self.client.clone(), namespace);
        let found = services.get(service).await.map_err(|error| error.to_string())?;
        let ip = found.spec.and_then(|spec| spec.cluster_ip);
        let ip = ip.ok_or_else(|| format!("Service {service} has no address yet"))?;
        Ok(if ip.contains(':') { format!("http://[{ip}]") } else { format!("http://{ip}") })
    }

    async fn forwarded(&self, namespace: &str, pod: &str, port: u16) -> Result<String, String> {
        let key = (namespace.to_owned(), pod.to_owned(), port);
        let forwards = self.forwards.as_ref().ok_or("pods are reached directly")?;
        let known = forwards.lock().unwrap().get(&key).copied();
        let address = match known {
            Some(address) => address,
            None => {
                let address = forward(self.client.clone(), key.clone()).await.map_err(|e| e.to_string())?;
                forwards.lock().unwrap().insert(key, address);
                address
            }
        };
        Ok(format!("http://{address}"))
    }
}

/// Opens a local port; each connection to it becomes one to the pod, whichever pod has the name then.
async fn forward(client: kube::Client, (namespace, pod, port): Port) -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let pods: Api<Pod> = Api::namespaced(client, &namespace);
    tokio::spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            let (pods, pod) = (pods.clone(), pod.clone());
            tokio::spawn(async move {
                if let Err(error) = connect(&pods, &pod, port, connection).await {
                    println!("  port-forward to {pod}:{port}: {error}");
                }
            });
        }
    });
    Ok(address)
}

async fn connect(pods: &Api<Pod>, pod: &str, port: u16, mut here: TcpStream) -> Result<(), String> {
    let mut forwarder = pods.portforward(pod, &[port]).await.map_err(|error| error.to_string())?;
    let mut there = forwarder.take_stream(port).ok_or("no stream")?;
    // An end of either side is the end of the connection, and no matter.
    let _ = tokio::io::copy_bidirectional(&mut here, &mut there).await;
    Ok(())
}
