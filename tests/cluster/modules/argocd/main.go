// Command argocd is what of Argo CD (its gitops-engine and its Lua) meets a SkillUpdate, without its server and its Git: how it judges health by its
// ConfigMap, and how it finds drift and applies.
//
// It reads one JSON document a line and answers each with one line.
//
//	argocd health CONFIGMAP   objects in, their health out
//	argocd sync MODE          manifests in, applied by MODE (client or server) to the cluster of $KUBECONFIG; out comes,
//	                          for each, which ways of comparing had found it out of sync, what was done, what went wrong
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"

	"github.com/argoproj/gitops-engine/pkg/diff"
	"github.com/argoproj/gitops-engine/pkg/health"
	"github.com/argoproj/gitops-engine/pkg/utils/kube"
	"github.com/argoproj/gitops-engine/pkg/utils/tracing"
	"github.com/go-logr/logr"
	lua "github.com/yuin/gopher-lua"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	cmdutil "k8s.io/kubectl/pkg/cmd/util"
	luajson "layeh.com/gopher-json"
	"sigs.k8s.io/yaml"
)

// manager is Argo CD's field manager.
const manager = "argocd-controller"

type verdict struct {
	Status  string `json:"status"`
	Message string `json:"message"`
}

type synced struct {
	Drift []string `json:"drift"`
	Did   string   `json:"did"`
	Error string   `json:"error"`
}

func main() {
	var answer func([]*unstructured.Unstructured) any
	switch os.Args[1] {
	case "health":
		answer = judge(os.Args[2])
	case "sync":
		answer = newSyncer(os.Args[2] == "server").sync
	}
	lines := bufio.NewReader(os.Stdin)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return
		}
		var objects []*unstructured.Unstructured
		must(json.Unmarshal(line, &objects))
		out, err := json.Marshal(answer(objects))
		must(err)
		fmt.Println(string(out))
	}
}

// judge returns how Argo CD judges objects with the customizations of this argocd-cm.
func judge(file string) func([]*unstructured.Unstructured) any {
	text, err := os.ReadFile(file)
	must(err)
	var configuration corev1.ConfigMap
	must(yaml.UnmarshalStrict(text, &configuration))
	return func(objects []*unstructured.Unstructured) any {
		verdicts := []verdict{}
		for _, object := range objects {
			found, err := health.GetResourceHealth(object, customizations(configuration.Data))
			must(err)
			if found == nil {
				found = &health.HealthStatus{}
			}
			verdicts = append(verdicts, verdict{string(found.Status), found.Message})
		}
		return verdicts
	}
}

// customizations are the data of argocd-cm.
type customizations map[string]string

// GetResourceHealth runs the script for an object's kind, if there is one, with the libraries that Argo CD opens.
//
// Source: argo-cd, util/lua/lua.go, runLua; util/settings/settings.go, appendResourceOverridesFromSplitKeys.
func (c customizations) GetResourceHealth(object *unstructured.Unstructured) (*health.HealthStatus, error) {
	kind := object.GroupVersionKind()
	script, ok := c["resource.customizations.health."+kind.Group+"_"+kind.Kind]
	if !ok {
		return nil, nil
	}
	state := lua.NewState(lua.Options{SkipOpenLibs: true})
	defer state.Close()
	for _, library := range []struct {
		name string
		open lua.LGFunction
	}{{lua.LoadLibName, lua.OpenPackage}, {lua.BaseLibName, lua.OpenBase}, {lua.TabLibName, lua.OpenTable}} {
		open := lua.P{Fn: state.NewFunction(library.open), Protect: true}
		if err := state.CallByParam(open, lua.LString(library.name)); err != nil {
			return nil, err
		}
	}
	text, err := object.MarshalJSON()
	if err != nil {
		return nil, err
	}
	value, err := luajson.Decode(state, text)
	if err != nil {
		return nil, err
	}
	state.SetGlobal("obj", value)
	if err := state.DoString(script); err != nil {
		return nil, err
	}
	said, err := luajson.Encode(state.Get(-1))
	if err != nil {
		return nil, err
	}
	result := &health.HealthStatus{}
	return result, json.Unmarshal(said, result)
}

type syncer struct {
	cluster    *rest.Config
	kubectl    *kube.KubectlCmd
	operations kube.ResourceOperations
	serverSide bool
	compare    map[string][]diff.Option
}

func newSyncer(serverSide bool) *syncer {
	cluster, err := clientcmd.BuildConfigFromFlags("", os.Getenv("KUBECONFIG"))
	must(err)
	cluster.QPS, cluster.Burst = 100, 200
	log, tracer := logr.Discard(), tracing.NopTracer{}
	kubectl := &kube.KubectlCmd{Log: log, Tracer: tracer}
	schema, parser, err := kubectl.LoadOpenAPISchema(cluster)
	must(err)
	operations, _, err := kubectl.ManageResources(cluster, schema)
	must(err)
	dryRun, _, err := kube.ManageServerSideDiffDryRuns(cluster, schema, tracer, log, nil)
	must(err)
	ours := []diff.Option{diff.WithManager(manager), diff.WithGVKParser(parser), diff.WithNormalizer(statusIgnored{})}
	compare := map[string][]diff.Option{
		"server-side diff": append(ours[:3:3], diff.WithServerSideDiff(true), diff.WithIgnoreMutationWebhook(true),
			diff.WithServerSideDryRunner(diff.NewK8sServerSideDryRunner(dryRun))),
	}
	if serverSide {
		compare["structured merge diff"] = append(ours[:3:3], diff.WithStructuredMergeDiff(true))
	} else {
		compare["three-way diff"] = ours
	}
	return &syncer{cluster, kubectl, operations, serverSide, compare}
}

func (s *syncer) sync(objects []*unstructured.Unstructured) any {
	results := []synced{}
	for _, object := range objects {
		results = append(results, s.one(object))
	}
	return results
}

func (s *syncer) one(object *unstructured.Unstructured) synced {
	drift, err := s.drift(object)
	if err != nil {
		return synced{drift, "", err.Error()}
	}
	did, err := s.operations.ApplyResource(context.Background(), object.DeepCopy(), cmdutil.DryRunNone, false, true,
		s.serverSide, manager)
	if err != nil {
		return synced{drift, did, err.Error()}
	}
	return synced{drift, did, ""}
}

// drift returns the ways of comparing that find an object that is there out of sync.
func (s *syncer) drift(object *unstructured.Unstructured) ([]string, error) {
	found := []string{}
	live, err := s.kubectl.GetResource(context.Background(), s.cluster, object.GroupVersionKind(), object.GetName(),
		object.GetNamespace())
	if apierrors.IsNotFound(err) {
		return found, nil
	}
	if err != nil {
		return found, err
	}
	for name, options := range s.compare {
		result, err := diff.Diff(object.DeepCopy(), live.DeepCopy(), options...)
		if err != nil {
			return found, fmt.Errorf("%s: %w", name, err)
		}
		if result.Modified {
			found = append(found, fmt.Sprintf("%s: %s", name, result.PredictedLive))
		}
	}
	return found, nil
}

// statusIgnored is Argo CD's default setting ignoreResourceStatusField: all.
type statusIgnored struct{}

func (statusIgnored) Normalize(object *unstructured.Unstructured) error {
	unstructured.RemoveNestedField(object.Object, "status")
	return nil
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
