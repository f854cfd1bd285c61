// Takes batches of orders, and says of each what became of it.
package main

import (
	"cmp"
	"encoding/json"
	"log"
	"net/http"
	"os"
)

func take(w http.ResponseWriter, r *http.Request) {
	var batch struct{ Messages []map[string]any }
	if err := json.NewDecoder(r.Body).Decode(&batch); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	acks, retries := []any{}, []map[string]any{}
	for _, message := range batch.Messages {
		id, attempts := message["id"], message["attempts"]
		if order, _ := message["body"].(map[string]any); order["item"] != nil {
			acks = append(acks, id)
		} else {
			log.Printf("message %s failed, attempt %v: an order needs an item", id, attempts)
			retries = append(retries, map[string]any{"msgId": id, "delaySeconds": attempts})
		}
	}
	w.Header().Set("content-type", "application/json")
	json.NewEncoder(w).Encode(map[string]any{"explicitAcks": acks, "retryMessages": retries})
}

func main() {
	http.HandleFunc("POST /orders", take)
	log.Fatal(http.ListenAndServe(":"+cmp.Or(os.Getenv("PORT"), "8080"), nil))
}
