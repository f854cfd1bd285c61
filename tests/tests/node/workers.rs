//! The example Workers in pods: as their READMEs say, with nothing but their own files.

use std::time::Duration;

use e2e::cluster::{Cluster, LONG, Namespace, Turn, ledger, tool, until};
use k8s_openapi::api::apps::v1::Deployment;
use kube::ResourceExt;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::fixture::{is_rolled_out, until_consuming};

/// Where `fetch` listens.
const FETCH: u16 = 8787;

struct Worker<'a> {
    namespace: &'a Namespace,
    /// Of its folder, its Deployment and its pods' label.
    name: &'static str,
}

impl Worker<'_> {
    /// Runs an example in a namespace of its own; `consumer` is its Consumer.
    async fn run(name: &'static str, consumer: &str, test: impl AsyncFnOnce(&Worker<'_>)) {
        let cluster = Cluster::connect().await;
        let _turn = Turn::installed(&cluster).await;
        Namespace::run(&cluster, &format!("workers-{name}"), async |namespace| {
            let folder = tool::root().join("examples/workers").join(name);
            for file in ["queue.yaml", "consumer.yaml", "application.yaml"] {
                namespace.apply(&std::fs::read_to_string(folder.join(file)).unwrap()).await;
            }
            until_consuming(namespace, consumer, name).await;
            test(&Worker { namespace, name }).await;
        })
        .await;
    }

    async fn request(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<(StatusCode, Value), String> {
        let pods = self.namespace.pods(&format!("app={}", self.name)).await;
        let pod = pods.first().ok_or("it has no pod")?.name_any();
        let address = self.namespace.pod(&pod, FETCH).await?;
        let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(30)).build().unwrap();
        let mut request = client.request(method, format!("{address}{path}"));
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request.send().await.map_err(|error| error.to_string())?;
        let (status, text) = (answer.status(), answer.text().await.map_err(|error| error.to_string())?);
        Ok((status, serde_json::from_str(&text).unwrap_or(Value::String(text))))
    }
}

#[tokio::test]
async fn an_order_is_taken_and_handled() {
    Worker::run("orders", "orders", async |worker| {
        let (status, taken) =
            worker.request(Method::POST, "/orders", Some(json!({"item": "lamp"}))).await.unwrap();
        assert_eq!(status, StatusCode::ACCEPTED, "{taken}");
        let path = format!("/orders/{}", taken["id"].as_str().unwrap());
        let order = until("the order is handled", LONG, async || {
            match worker.request(Method::GET, &path, None).await? {
                (StatusCode::OK, order) => Ok(order),
                (status, _) => Err(status.to_string()),
            }
        })
        .await;
        assert_eq!((&order["item"], &order["shop"]), (&json!("lamp"), &json!("lamps")));
    })
    .await;
}

#[tokio::test]
async fn a_spike_of_readings_reaches_the_warehouse() {
    const READINGS: usize = 1000;
    /// Counts the sensors in the warehouse.
    const COUNT: &str = "const fs = require('fs'); const folder = '/data/readings'; \
        const files = fs.existsSync(folder) ? fs.readdirSync(folder).filter((name) => name.endsWith('.ndjson')) : []; \
        const rows = files.flatMap((name) => fs.readFileSync(folder + '/' + name, 'utf8').trim().split('\\n')); \
        console.log(new Set(rows.map((row) => JSON.parse(row).sensor)).size)";
    Worker::run("etl", "readings", async |worker| {
        let reading =
            |n: usize| json!({"sensor": format!("S-{n}"), "fahrenheit": n, "at": "2026-11-28T06:00:00Z"});
        let readings = (0..READINGS).map(reading).collect();
        let (status, taken) = worker.request(Method::POST, "/readings", Some(readings)).await.unwrap();
        assert_eq!((status, taken), (StatusCode::ACCEPTED, json!({"taken": READINGS})));
        until("all readings are written", LONG, async || {
            let printed = worker
                .namespace
                .kubectl(&["exec", "deploy/etl", "-c", "etl", "--", "node", "-e", COUNT])
                .await;
            if printed.trim() == READINGS.to_string() {
                Ok(())
            } else {
                Err(format!("{} are", printed.trim()))
            }
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn a_crawl_reads_every_page() {
    Worker::run("crawler", "crawl", async |worker| {
        worker.namespace.apply(&ledger()).await;
        worker.namespace.wait_for::<Deployment>("ledger", "serves the pages", LONG, is_rolled_out).await;
        let first = json!({"url": "http://ledger/pages/0"});
        let (status, answer) = worker.request(Method::POST, "/crawl", Some(first)).await.unwrap();
        assert_eq!(status, StatusCode::ACCEPTED, "{answer}");
        until("all 40 pages are read", LONG, async || {
            let (_, pages) = worker.request(Method::GET, "/pages", None).await?;
            let count = pages.as_array().map_or(0, Vec::len);
            if count == 40 { Ok(()) } else { Err(format!("{count} are")) }
        })
        .await;
    })
    .await;
}
