// Command peer is what Relay is measured against: the least that a Go program of the field does for the same requests,
// with no credentials, no log and no metrics.
package main

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"
)

type execute struct {
	ActionProvider  string          `json:"action_provider"`
	ActionName      string          `json:"action_name"`
	Params          json.RawMessage `json:"params"`
	ClientRequestID string          `json:"client_request_id"`
}

// main serves on a free port of 127.0.0.1, which it prints, over the Redis server whose address is its argument.
func main() {
	if err := serve(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "peer:", err)
		os.Exit(1)
	}
}

func serve(redisAddr string) error {
	queue := asynq.NewClient(asynq.RedisClientOpt{Addr: redisAddr})
	rdb := redis.NewClient(&redis.Options{Addr: redisAddr})
	gin.SetMode(gin.ReleaseMode)
	engine := gin.New()
	engine.POST("/ai/execute", func(c *gin.Context) {
		var in execute
		if err := c.ShouldBindJSON(&in); err != nil {
			c.Status(http.StatusBadRequest)
			return
		}
		task := asynq.NewTask(in.ActionProvider+":"+in.ActionName, in.Params)
		info, err := queue.EnqueueContext(c.Request.Context(), task, asynq.TaskID(in.ClientRequestID))
		if err != nil {
			c.Status(http.StatusInternalServerError)
			return
		}
		c.JSON(http.StatusOK, gin.H{"job_id": info.ID, "status": "enqueued"})
	})
	engine.GET("/ai/jobs/:job_id", func(c *gin.Context) {
		job, err := rdb.HGetAll(c.Request.Context(), "ai:job:acme:"+c.Param("job_id")).Result()
		if err != nil || len(job) == 0 {
			c.Status(http.StatusInternalServerError)
			return
		}
		c.JSON(http.StatusOK, job)
	})
	listener, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // for the life of the process
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	fmt.Println(listener.Addr())
	server := http.Server{Handler: engine, ReadHeaderTimeout: 5 * time.Second}
	return fmt.Errorf("serve: %w", server.Serve(listener))
}
