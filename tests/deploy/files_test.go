package deploy_test

import (
	"context"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"github.com/relay-jobs/relay/app"
	"github.com/relay-jobs/relay/core/migration"
	"github.com/relay-jobs/relay/tests/harness"
	"github.com/relay-jobs/relay/tests/harness/conformance"
	"github.com/relay-jobs/relay/tests/harness/redisserver"
)

func TestMain(m *testing.M) { os.Exit(harness.Main(m)) }

type environment = map[string]string

// stopping is how long a server may take to stop: the grace for requests by default, and five seconds behind it.
func stopping(t *testing.T) time.Duration {
	t.Helper()
	c, err := app.Load(environment{"RELAY_API_KEYS_FILE": "keys.yaml"})
	require.NoError(t, err)
	return c.ShutdownGrace + 5*time.Second
}

// requireServes checks that a server starts with these variables, each of which is a setting, in the default phase.
func requireServes(t *testing.T, env environment) app.Config {
	t.Helper()
	known := map[string]bool{}
	for _, v := range app.Variables() {
		known[v.Name] = true
	}
	for name := range env {
		require.True(t, known[name], "%s is no setting", name)
	}
	c, err := app.Load(env)
	require.NoError(t, err)
	require.Equal(t, migration.ReadRouting, c.Phase)
	require.NotEmpty(t, env["REDIS_URL"])
	require.NotEmpty(t, env["RELAY_API_KEYS_FILE"])
	return c
}

// requireCommand checks that the binary has a command with these flags.
func requireCommand(t *testing.T, words ...string) {
	t.Helper()
	require.NotEmpty(t, words)
	code, stdout, stderr := harness.Run(t, nil, append(slices.Clone(words), "--help")...)
	require.Equal(t, app.ExitOK, code, "%q: %s", words, stderr)
	var names []string
	for _, word := range words {
		if !strings.HasPrefix(word, "-") {
			names = append(names, word)
		}
	}
	require.Contains(t, stdout, "relay "+strings.Join(names, " ")+" ", "%q", words)
}

func portOf(t *testing.T, addr string) int {
	t.Helper()
	_, text, err := net.SplitHostPort(addr)
	require.NoError(t, err)
	port, err := strconv.Atoi(text)
	require.NoError(t, err)
	return port
}

// instruction is one of a Dockerfile.
type instruction struct{ name, args string }

// dockerfile gives the instructions of each stage.
func dockerfile(t *testing.T) (stages [][]instruction) {
	t.Helper()
	text := regexp.MustCompile(`(?m)^#.*\n`).ReplaceAllString(read(t, "../../Dockerfile"), "")
	for line := range strings.Lines(strings.ReplaceAll(text, "\\\n", "")) {
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		name, args, _ := strings.Cut(line, " ")
		if name == "FROM" {
			stages = append(stages, nil)
		}
		stages[len(stages)-1] = append(stages[len(stages)-1], instruction{name, args})
	}
	return stages
}

// argsOf gives the arguments of the instructions of one name.
func argsOf(stage []instruction, name string) (all []string) {
	for _, i := range stage {
		if i.name == name {
			all = append(all, i.args)
		}
	}
	return all
}

// imageEnvironment is what the image sets.
func imageEnvironment(t *testing.T) environment {
	t.Helper()
	stages := dockerfile(t)
	env := environment{}
	for _, line := range argsOf(stages[len(stages)-1], "ENV") {
		for word := range strings.FieldsSeq(line) {
			name, value, ok := strings.Cut(word, "=")
			require.True(t, ok, word)
			env[name] = value
		}
	}
	return env
}

// with joins sets of variables, of which later ones win.
func with(sets ...environment) environment {
	all := environment{}
	for _, s := range sets {
		maps.Copy(all, s)
	}
	return all
}

func TestImageServesAsNobody(t *testing.T) {
	t.Parallel()
	stages := dockerfile(t)
	require.Len(t, stages, 2)
	goVersion := regexp.MustCompile(`(?m)^go (\S+)$`).FindStringSubmatch(read(t, "../../go.mod"))
	require.Equal(t, "--platform=$BUILDPLATFORM golang:"+goVersion[1]+" AS build", stages[0][0].args)

	image := stages[1]
	require.Equal(t, "scratch", image[0].args)
	require.Equal(t, []string{"65532:65532"}, argsOf(image, "USER"))
	c := requireServes(t, with(imageEnvironment(t), environment{"REDIS_URL": "redis://r", "RELAY_API_KEYS_FILE": "k"}))
	require.Equal(t, []string{strconv.Itoa(portOf(t, c.HTTPAddr)) + " " + strconv.Itoa(portOf(t, c.AdminAddr))}, argsOf(image, "EXPOSE"))
	require.Equal(t, []string{`["/relay"]`}, argsOf(image, "ENTRYPOINT"))
	require.Equal(t, []string{`["serve"]`}, argsOf(image, "CMD"))
	requireCommand(t, "serve")
}

// TestImageIsBuiltFromWhatIsSentThere: what .dockerignore leaves and the build copies holds all that the binary is made
// of, and no test.
func TestImageIsBuiltFromWhatIsSentThere(t *testing.T) {
	t.Parallel()
	kept := map[string]bool{}
	for line := range strings.Lines(read(t, "../../.dockerignore")) {
		line = strings.TrimSpace(line)
		if name, ok := strings.CutPrefix(line, "!"); ok {
			kept[name] = true
		} else if !strings.HasPrefix(line, "#") {
			require.Contains(t, []string{"*", "**/*_test.go", "**/testdata"}, line, "this test knows no other rules")
		}
	}
	dir := t.TempDir()
	for _, stage := range dockerfile(t) {
		for _, args := range argsOf(stage, "COPY") {
			words := strings.Fields(args)
			if strings.HasPrefix(words[0], "--from=") {
				continue
			}
			for _, name := range words[:len(words)-1] {
				require.True(t, kept[name], "%s is copied and not sent", name)
				delete(kept, name)
				copyWithoutTests(t, filepath.Join("../..", name), filepath.Join(dir, name))
			}
		}
	}
	require.Empty(t, kept, "sent and not copied")
	list := exec.CommandContext(t.Context(), "go", "list", "-deps", "-f", "{{.ImportPath}}", "./app/relay")
	list.Dir = dir
	out, err := list.CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Contains(t, string(out), "github.com/relay-jobs/relay/adapters/redisjobs\n")
}

func copyWithoutTests(t *testing.T, from, to string) {
	t.Helper()
	require.NoError(t, filepath.WalkDir(from, func(path string, d os.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.Name() == "testdata":
			return filepath.SkipDir
		case d.IsDir() || strings.HasSuffix(path, "_test.go"):
			return nil
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, rel)
		content, err := os.ReadFile(path)
		return errors.Join(err, os.MkdirAll(filepath.Dir(target), 0o755), os.WriteFile(target, content, 0o600))
	}))
}

// TestImageKnowsItsVersion builds with the flags of the Dockerfile.
func TestImageKnowsItsVersion(t *testing.T) {
	t.Parallel()
	run := argsOf(dockerfile(t)[0], "RUN")
	require.Len(t, run, 1)
	require.Contains(t, run[0], "CGO_ENABLED=0 ")
	require.Contains(t, run[0], " -trimpath ")
	flags := regexp.MustCompile(`-ldflags\s+"([^"]+)"`).FindStringSubmatch(run[0])
	require.NotNil(t, flags)
	binary := filepath.Join(t.TempDir(), "relay")
	given := strings.NewReplacer("$VERSION", "v1.2.3", "$REVISION", "0123abc").Replace(flags[1])
	out, err := exec.CommandContext(t.Context(), "go", "build", "-ldflags", given, "-o", binary, "../../app/relay").CombinedOutput()
	require.NoError(t, err, "%s", out)
	out, err = exec.CommandContext(t.Context(), binary, "version").Output()
	require.NoError(t, err)
	require.Regexp(t, `^relay v1\.2\.3 \(revision 0123abc, go`, string(out))
}

// composeService is what is looked at of one.
type composeService struct {
	Image       string
	Environment environment
	Entrypoint  []string
	Volumes     []string
	Ports       []string
	Grace       time.Duration `yaml:"stop_grace_period"`
	Healthcheck struct{ Test []string }
	ReadOnly    bool                      `yaml:"read_only"`
	CapDrop     []string                  `yaml:"cap_drop"`
	DependsOn   map[string]map[string]any `yaml:"depends_on"`
	Networks    map[string]struct{ Aliases []string }
}

func compose(t *testing.T) (services map[string]composeService, volumes map[string]any) {
	t.Helper()
	var file struct {
		Services map[string]composeService
		Volumes  map[string]any
	}
	require.NoError(t, yaml.Unmarshal([]byte(read(t, "../../configs/compose.yaml")), &file))
	return file.Services, file.Volumes
}

// interpolated puts what an operator gives in the place of ${NAME:?…}.
func interpolated(env environment, value string) environment {
	out := environment{}
	for name, text := range env {
		out[name] = regexp.MustCompile(`\$\{\w+:\?[^}]*\}`).ReplaceAllString(text, value)
	}
	return out
}

func TestComposeFits(t *testing.T) {
	t.Parallel()
	services, volumes := compose(t)
	require.Len(t, services, 5)
	for name, s := range services {
		require.True(t, s.ReadOnly, name)
		require.Equal(t, []string{"ALL"}, s.CapDrop, name)
		for dependency := range s.DependsOn {
			require.Contains(t, services, dependency)
		}
		for _, volume := range s.Volumes {
			source, _, _ := strings.Cut(volume, ":")
			if strings.HasPrefix(source, ".") {
				_, err := os.Stat(filepath.Join("../../configs", source))
				require.NoError(t, err)
				require.Regexp(t, `:ro$`, volume)
			} else {
				require.Contains(t, volumes, source)
			}
		}
		for _, published := range s.Ports {
			require.Regexp(t, `^127\.0\.0\.1:`, published)
		}
	}
	relay, migrate := services["relay"], services["migrate"]
	c := requireServes(t, with(imageEnvironment(t), interpolated(relay.Environment, "secret")))
	require.Equal(t, "redis://"+redisserver.ServerUser+":secret@redis:6379/0", c.RedisURL)
	require.Equal(t, []string{"./keys.yaml:" + c.APIKeysFile + ":ro"}, relay.Volumes)
	require.Equal(t, []string{"127.0.0.1:8080:" + strconv.Itoa(portOf(t, c.HTTPAddr))}, relay.Ports, "and not the admin listener's")
	require.GreaterOrEqual(t, relay.Grace, stopping(t))

	require.Equal(t, relay.Image, migrate.Image)
	require.Equal(t, []string{"/relay", "migrate"}, migrate.Entrypoint)
	operated := interpolated(migrate.Environment, "secret")
	require.Equal(t, "redis://"+redisserver.OperatorUser+":secret@redis:6379/0", operated["REDIS_URL"])
	for _, name := range []string{"AI_JOBS_NEW_SCHEMA", "AI_JOBS_OLD_SCHEMA", "READ_PREFERS_NEW", "READ_FALLBACK_OLD"} {
		require.Equal(t, relay.Environment[name], operated[name], name)
	}
	for _, line := range regexp.MustCompile(`(?m)^#   docker compose run .* migrate (.*)$`).FindAllStringSubmatch(read(t, "../../configs/compose.yaml"), -1) {
		requireCommand(t, append([]string{"migrate"}, strings.Fields(line[1])...)...)
	}
}

// TestComposesRedisAdmitsItsUsers runs the command of the Redis service with a Redis server of this machine.
func TestComposesRedisAdmitsItsUsers(t *testing.T) {
	t.Parallel()
	services, _ := compose(t)
	service := services["redis"]
	require.Equal(t, []string{"sh", "-euc"}, service.Entrypoint[:2])
	require.Contains(t, service.Volumes, "./redis/users.acl:/etc/redis/users.acl:ro")
	dir := t.TempDir()
	acl, err := filepath.Abs(aclFile)
	require.NoError(t, err)
	socket := filepath.Join(dir, "s")
	script := strings.NewReplacer("$$", "$", "/etc/redis/users.acl", acl, "/tmp/users.acl", filepath.Join(dir, "users.acl"),
		"--dir /data", "--dir "+dir+" --port 0 --unixsocket "+socket).Replace(service.Entrypoint[2])
	passwords := environment{"REDIS_SERVER_PASSWORD": "d0e5", "REDIS_OPERATOR_PASSWORD": "b0a7", "REDIS_ADMIN_PASSWORD": "c0de"}
	require.Len(t, service.Environment, len(passwords))
	for name := range service.Environment {
		require.Contains(t, passwords, name)
	}
	output := startRedis(t.Context(), t, script, socket, passwords)
	for user, c := range map[string]struct {
		password string
		admitted bool
	}{
		redisserver.ServerUser:   {passwords["REDIS_SERVER_PASSWORD"], true},
		redisserver.OperatorUser: {passwords["REDIS_OPERATOR_PASSWORD"], true},
		"administrator":          {passwords["REDIS_ADMIN_PASSWORD"], true},
		"default":                {"", false},
	} {
		rdb := redis.NewClient(&redis.Options{Network: "unix", Addr: socket, Username: user, Password: c.password, DisableIdentity: true})
		err := rdb.Ping(t.Context()).Err()
		require.Equal(t, c.admitted, err == nil, "%s: %v: %s", user, err, output.String())
		if c.admitted {
			info, err := rdb.Info(t.Context(), "memory", "persistence").Result()
			require.NoError(t, err)
			require.Contains(t, info, "maxmemory_policy:noeviction\r\n")
			require.Contains(t, info, "aof_enabled:1\r\n")
		}
		for _, command := range [][]any{{"ACL", "LOG"}, {"SLOWLOG", "GET"}} {
			require.Equal(t, user == "administrator", rdb.Do(t.Context(), command...).Err() == nil, "%s: %v", user, command)
		}
		require.NoError(t, rdb.Close())
	}
	require.Contains(t, service.Healthcheck.Test[1], "REDISCLI_AUTH=$$REDIS_SERVER_PASSWORD redis-cli --user "+redisserver.ServerUser+" ping")
}

// TestRunbookKeepsToTheOperatorsRights: each line for Redis in it says as whom, and may be run by that user.
func TestRunbookKeepsToTheOperatorsRights(t *testing.T) {
	t.Parallel()
	server := redisserver.Start(t)
	users := map[string]*redis.Client{
		redisserver.OperatorUser: redisserver.AsOperator(t, server.Client(t)), "administrator": server.Client(t),
	}
	var run []string
	for _, line := range regexp.MustCompile(`(?m)^    redis-cli (.*)$`).FindAllStringSubmatch(read(t, "../../configs/RUNBOOK.md"), -1) {
		command, _, _ := strings.Cut(line[1], "#")
		words := strings.Fields(command)
		require.Equal(t, []string{"--user", "--askpass"}, []string{words[0], words[2]}, line[1])
		require.Contains(t, users, words[1])
		args := make([]any, len(words)-3)
		for i, word := range words[3:] {
			args[i] = word
		}
		require.NoError(t, users[words[1]].Do(t.Context(), args...).Err(), line[1])
		run = append(run, words[3])
	}
	require.Equal(t, []string{"SET", "SET", "XREVRANGE", "ACL"}, run)
}

// startRedis runs a script that starts a Redis server at a socket, which ends with ctx, at the latest with the test's.
func startRedis(ctx context.Context, t *testing.T, script, socket string, env environment) (output *harness.Buffer) {
	t.Helper()
	output = &harness.Buffer{}
	cmd := exec.CommandContext(ctx, "sh", "-euc", script)
	cmd.Dir, cmd.Env = filepath.Dir(socket), []string{"PATH=" + os.Getenv("PATH")}
	for name, value := range env {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	cmd.Stdout, cmd.Stderr = output, output
	// A killed server may lose what its log does not hold yet.
	cmd.Cancel, cmd.WaitDelay = func() error { return cmd.Process.Signal(syscall.SIGTERM) }, 20*time.Second
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Wait() })
	require.Eventually(t, func() bool {
		conn, err := new(net.Dialer).DialContext(t.Context(), "unix", socket)
		return err == nil && conn.Close() == nil
	}, 20*time.Second, 5*time.Millisecond, "%s", output.String())
	return output
}

// redisOfReadme gives README's lines that make users, that start a Redis server, there at a socket, and that use it.
func redisOfReadme(t *testing.T) (users, start, use, socket string) {
	t.Helper()
	block := regexp.MustCompile(`(?ms)^      for user in server operator;.*?migrate status$`).FindString(read(t, "../../README.md"))
	start, use, found := strings.Cut(block, " --daemonize yes\n")
	require.True(t, found)
	users, start, found = strings.Cut(start, "redis-server")
	require.True(t, found)
	acl, err := filepath.Abs(aclFile)
	require.NoError(t, err)
	socket = filepath.Join(t.TempDir(), "s")
	return "cp " + acl + " users.acl\n" + users, "exec redis-server --port 0 --unixsocket " + socket + start, use, socket
}

// TestReadmeStartsRedisWithItsUsers runs its lines, with a socket in the place of the port.
func TestReadmeStartsRedisWithItsUsers(t *testing.T) {
	t.Parallel()
	users, start, use, socket := redisOfReadme(t)
	dir := filepath.Dir(socket)
	startRedis(t.Context(), t, users+start, socket, nil)
	commands := regexp.MustCompile(`REDIS_URL=(redis://\S+:\$\(cat (\w+\.password)\)@127\.0\.0\.1:6379/0) (?:RELAY_API_KEYS_FILE=keys\.yaml )?\.bin/relay (.*)`).
		FindAllStringSubmatch(use, -1)
	require.Len(t, commands, 2)
	for _, c := range commands {
		url := strings.NewReplacer("$(cat "+c[2]+")", strings.TrimSpace(read(t, filepath.Join(dir, c[2]))), "redis://", "unix://",
			"127.0.0.1:6379/0", socket).Replace(c[1])
		requireCommand(t, strings.Fields(c[3])...)
		if c[3] == "serve" {
			harness.Start(t, environment{"REDIS_URL": url, "RELAY_API_KEYS_FILE": "../../configs/keys.yaml"})
			continue
		}
		code, _, stderr := harness.Run(t, environment{"REDIS_URL": url}, strings.Fields(c[3])...)
		require.Equal(t, app.ExitOK, code, stderr)
	}
}

// object is what is looked at of one of Kubernetes'.
type object struct {
	Kind     string
	Metadata struct{ Name string }
	Data     environment
	Strings  environment `yaml:"stringData"`
	Spec     struct {
		Template struct {
			Metadata struct{ Labels environment }
			Spec     pod
		}
		Ports []struct {
			Target string `yaml:"targetPort"`
		}
		PodSelector selector `yaml:"podSelector"`
		Ingress     []struct {
			Ports []struct{ Port string }
			From  []map[string]selector
		}
		Failures struct {
			Rules []struct {
				Action string
				Codes  struct{ Values []int } `yaml:"onExitCodes"`
			}
		} `yaml:"podFailurePolicy"`
	}
}

type selector struct {
	MatchLabels environment `yaml:"matchLabels"`
}

type pod struct {
	Account string `yaml:"serviceAccountName"`
	Token   *bool  `yaml:"automountServiceAccountToken"`
	Links   *bool  `yaml:"enableServiceLinks"`
	Grace   int    `yaml:"terminationGracePeriodSeconds"`
	Volumes []struct {
		Name   string
		Secret struct {
			Name string `yaml:"secretName"`
		}
	}
	Containers []struct {
		Args []string
		Env  []struct {
			Name, Value string
			From        struct {
				Secret struct{ Name, Key string } `yaml:"secretKeyRef"`
			} `yaml:"valueFrom"`
		}
		EnvFrom []struct {
			ConfigMap struct{ Name string } `yaml:"configMapRef"`
		} `yaml:"envFrom"`
		Ports []struct {
			Name string
			Port int `yaml:"containerPort"`
		}
		Liveness  probe `yaml:"livenessProbe"`
		Readiness probe `yaml:"readinessProbe"`
		Lifecycle struct {
			PreStop struct{ Sleep struct{ Seconds int } } `yaml:"preStop"`
		}
		Mounts []struct {
			Name string
			Path string `yaml:"mountPath"`
		} `yaml:"volumeMounts"`
	}
}

type probe struct {
	HTTP struct{ Path, Port string } `yaml:"httpGet"`
}

// kubernetes gives the objects of the manifests by kind and name.
func kubernetes(t *testing.T) map[string]object {
	t.Helper()
	files, err := filepath.Glob("../../configs/kubernetes/*.yaml")
	require.NoError(t, err)
	all := map[string]object{}
	for _, file := range files {
		documents := yaml.NewDecoder(strings.NewReader(read(t, file)))
		for {
			var o object
			err := documents.Decode(&o)
			if errors.Is(err, io.EOF) {
				break
			}
			require.NoError(t, err, file)
			name := o.Kind + " " + o.Metadata.Name
			require.NotContains(t, all, name)
			all[name] = o
		}
	}
	return all
}

// environmentOf gives what a pod's container gets, and checks what it refers to.
func environmentOf(t *testing.T, all map[string]object, p pod) environment {
	t.Helper()
	require.Len(t, p.Containers, 1)
	c := p.Containers[0]
	env := imageEnvironment(t)
	for _, from := range c.EnvFrom {
		require.Contains(t, all, "ConfigMap "+from.ConfigMap.Name)
		maps.Copy(env, all["ConfigMap "+from.ConfigMap.Name].Data)
	}
	for _, e := range c.Env {
		env[e.Name] = e.Value
		if ref := e.From.Secret; ref.Name != "" {
			env[e.Name] = all["Secret "+ref.Name].Strings[ref.Key]
		}
		require.NotEmpty(t, env[e.Name], e.Name)
	}
	require.Contains(t, all, "ServiceAccount "+p.Account)
	require.False(t, *p.Token)
	require.False(t, *p.Links, "a service named relay would set variables named like settings")
	return env
}

func TestKubernetesServersFit(t *testing.T) {
	t.Parallel()
	all := kubernetes(t)
	p := all["Deployment relay"].Spec.Template.Spec
	config := requireServes(t, environmentOf(t, all, p))
	require.Contains(t, config.RedisURL, "//"+redisserver.ServerUser+":")
	c := p.Containers[0]
	requireCommand(t, c.Args...)
	ports := map[string]int{}
	for _, port := range c.Ports {
		ports[port.Name] = port.Port
	}
	require.Equal(t, map[string]int{"http": portOf(t, config.HTTPAddr), "admin": portOf(t, config.AdminAddr)}, ports)
	require.Equal(t, "http", all["Service relay"].Spec.Ports[0].Target)
	require.Len(t, all["Service relay"].Spec.Ports, 1)
	require.GreaterOrEqual(t, time.Duration(p.Grace-c.Lifecycle.PreStop.Sleep.Seconds)*time.Second, stopping(t))
	require.Positive(t, c.Lifecycle.PreStop.Sleep.Seconds)

	require.Equal(t, filepath.Dir(config.APIKeysFile), c.Mounts[0].Path)
	require.Equal(t, p.Volumes[0].Name, c.Mounts[0].Name)
	keys := all["Secret "+p.Volumes[0].Secret.Name].Strings[filepath.Base(config.APIKeysFile)]
	file := filepath.Join(t.TempDir(), "keys.yaml")
	require.NoError(t, os.WriteFile(file, []byte(keys), 0o600))
	server := harness.Boot(t, environment{"REDIS_URL": redisserver.Start(t).URL(), "RELAY_API_KEYS_FILE": file})
	harness.AwaitReady(t, server.URL)
	for _, asked := range []probe{c.Liveness, c.Readiness} {
		require.Equal(t, "http", asked.HTTP.Port)
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+asked.HTTP.Path, nil)
		require.NoError(t, err)
		resp, err := conformance.Client(t).Do(req)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		require.Equal(t, http.StatusOK, resp.StatusCode, asked.HTTP.Path)
	}
}

func TestKubernetesMigrateFits(t *testing.T) {
	t.Parallel()
	all := kubernetes(t)
	job := all["Job "].Spec // its name is generated
	env := environmentOf(t, all, job.Template.Spec)
	require.Contains(t, env["REDIS_URL"], "//"+redisserver.OperatorUser+":")
	c := job.Template.Spec.Containers[0]
	requireCommand(t, c.Args...)
	require.Contains(t, c.Args, "--metrics-addr=0.0.0.0:"+strconv.Itoa(c.Ports[0].Port))
	for i, code := range []int{app.ExitDiffers, app.ExitRefused} {
		require.Equal(t, "FailJob", job.Failures.Rules[i].Action)
		require.Equal(t, []int{code}, job.Failures.Rules[i].Codes.Values)
	}
	text := read(t, "../../configs/kubernetes/migrate.yaml")
	scripts := regexp.MustCompile(`(?m)^#   sed '(.*)' migrate\.yaml \|`).FindAllStringSubmatch(text, -1)
	require.NotEmpty(t, scripts)
	for _, script := range scripts {
		edit := exec.CommandContext(t.Context(), "sed", script[1], "migrate.yaml")
		edit.Dir = "../../configs/kubernetes"
		edited, err := edit.Output()
		require.NoError(t, err)
		var o object
		require.NoError(t, yaml.Unmarshal(edited, &o))
		args := o.Spec.Template.Spec.Containers[0].Args
		require.NotEqual(t, c.Args, args)
		requireCommand(t, args...)
	}
}

// TestKubernetesKeepsMetricsForPrometheus: what names workspaces is reached from there alone.
func TestKubernetesKeepsMetricsForPrometheus(t *testing.T) {
	t.Parallel()
	all := kubernetes(t)
	for name, o := range all {
		if o.Kind != "Deployment" && o.Kind != "Job" {
			continue
		}
		labels := o.Spec.Template.Metadata.Labels
		policy := all["NetworkPolicy "+labels["app.kubernetes.io/name"]]
		require.Equal(t, labels, policy.Spec.PodSelector.MatchLabels, name)
		open := map[string]bool{} // to everybody
		for _, rule := range policy.Spec.Ingress {
			require.Len(t, rule.Ports, 1)
			open[rule.Ports[0].Port] = len(rule.From) == 0
			for _, from := range rule.From {
				require.Equal(t, "prometheus", from["podSelector"].MatchLabels["app.kubernetes.io/name"])
				require.NotEmpty(t, from["namespaceSelector"].MatchLabels)
			}
		}
		want := map[string]bool{}
		for _, port := range o.Spec.Template.Spec.Containers[0].Ports {
			want[port.Name] = port.Name == "http"
		}
		require.Equal(t, want, open, name)
	}
}

// TestPrometheusFindsWhatKubernetesRuns: by the labels and ports of the manifests, under the names that the rules know.
func TestPrometheusFindsWhatKubernetesRuns(t *testing.T) {
	t.Parallel()
	var config struct {
		Scrapes []struct {
			Job       string `yaml:"job_name"`
			Discovery []struct {
				Selectors []struct{ Label string }
			} `yaml:"kubernetes_sd_configs"`
			Relabel []struct{ Regex, Action string } `yaml:"relabel_configs"`
		} `yaml:"scrape_configs"`
	}
	require.NoError(t, yaml.Unmarshal([]byte(read(t, "../../configs/prometheus/kubernetes.yml")), &config))
	all := kubernetes(t)
	require.Len(t, config.Scrapes, 2)
	for i, c := range []struct{ job, object string }{{"relay", "Deployment relay"}, {"relay-backfill", "Job "}} {
		scrape, template := config.Scrapes[i], all[c.object].Spec.Template
		require.Equal(t, c.job, scrape.Job)
		require.Equal(t, "app.kubernetes.io/name="+template.Metadata.Labels["app.kubernetes.io/name"], scrape.Discovery[0].Selectors[0].Label)
		ports := template.Spec.Containers[0].Ports
		require.Equal(t, "keep", scrape.Relabel[0].Action)
		require.Equal(t, ports[len(ports)-1].Name, scrape.Relabel[0].Regex)
	}
}

func TestUnitFits(t *testing.T) {
	t.Parallel()
	unit := map[string][]string{}
	for line := range strings.Lines(read(t, "../../configs/systemd/relay.service")) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok && !strings.HasPrefix(name, "#") {
			unit[name] = append(unit[name], value)
		}
	}
	command := strings.Fields(unit["ExecStart"][0])
	require.Equal(t, "/usr/local/bin/relay", command[0])
	requireCommand(t, command[1:]...)
	env := environment{"REDIS_URL": "redis://r"} // which relay.env gives
	for _, pair := range unit["Environment"] {
		name, value, _ := strings.Cut(pair, "=")
		env[name] = value
	}
	requireServes(t, env)
	limit, err := time.ParseDuration(unit["TimeoutStopSec"][0])
	require.NoError(t, err)
	require.GreaterOrEqual(t, limit, stopping(t))
	require.Equal(t, []string{strconv.Itoa(app.ExitRefused)}, unit["RestartPreventExitStatus"])
	require.Equal(t, []string{"yes"}, unit["DynamicUser"])
}
