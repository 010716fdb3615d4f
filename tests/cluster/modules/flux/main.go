// Command flux is what of Flux meets a SkillUpdate, without its Git: how kustomize-controller judges health, with and
// without expressions, and how it finds drift and applies.
//
// It reads one JSON document a line and answers each with one line.
//
//	flux health KUSTOMIZATION   objects in; out comes, for each, its status by kstatus alone and by the
//	                            healthCheckExprs of that Kustomization
//	flux sync                   manifests in, applied to the cluster of $KUBECONFIG; out comes, for each, whether it had
//	                            drifted, what was done, what went wrong
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"

	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	"github.com/fluxcd/pkg/apis/kustomize"
	"github.com/fluxcd/pkg/runtime/cel"
	"github.com/fluxcd/pkg/ssa"
	"github.com/fluxcd/pkg/ssa/normalize"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"
)

const controller, group = "kustomize-controller", "kustomize.toolkit.fluxcd.io"

type verdict struct {
	Kstatus     string `json:"kstatus"`
	Expressions string `json:"expressions"`
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
		answer = syncer()
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

// judge returns how kustomize-controller judges objects with the expressions of this Kustomization.
func judge(file string) func([]*unstructured.Unstructured) any {
	text, err := os.ReadFile(file)
	must(err)
	var kustomization struct {
		Spec struct {
			HealthCheckExprs []kustomize.CustomHealthCheck `json:"healthCheckExprs"`
		} `json:"spec"`
	}
	must(yaml.Unmarshal(text, &kustomization))
	evaluators := map[string]*cel.StatusEvaluator{}
	for _, check := range kustomization.Spec.HealthCheckExprs {
		evaluators[check.APIVersion+" "+check.Kind], err = cel.NewStatusEvaluator(&check.HealthCheckExpressions)
		must(err)
	}
	return func(objects []*unstructured.Unstructured) any {
		verdicts := []verdict{}
		for _, object := range objects {
			alone, err := status.Compute(object)
			must(err)
			with, err := evaluators[object.GetAPIVersion()+" "+object.GetKind()].Evaluate(context.Background(), object)
			must(err)
			verdicts = append(verdicts, verdict{string(alone.Status), string(with.Status)})
		}
		return verdicts
	}
}

// syncer returns how kustomize-controller applies.
//
// Source: kustomize-controller, internal/controller/kustomization_controller.go, apply.
func syncer() func([]*unstructured.Unstructured) any {
	cluster, err := clientcmd.BuildConfigFromFlags("", os.Getenv("KUBECONFIG"))
	must(err)
	cluster.QPS, cluster.Burst = 100, 200
	api, err := client.New(cluster, client.Options{})
	must(err)
	manager := ssa.NewResourceManager(api, nil, ssa.Owner{Field: controller, Group: group})
	options := ssa.DefaultApplyOptions()
	options.Cleanup = ssa.ApplyCleanupOptions{
		Annotations: []string{corev1.LastAppliedConfigAnnotation},
		FieldManagers: []ssa.FieldManager{
			{Name: "kubectl", OperationType: metav1.ManagedFieldsOperationApply},
			{Name: "kubectl", OperationType: metav1.ManagedFieldsOperationUpdate},
			{Name: "before-first-apply", OperationType: metav1.ManagedFieldsOperationUpdate},
			{Name: controller, OperationType: metav1.ManagedFieldsOperationUpdate},
		},
	}
	return func(objects []*unstructured.Unstructured) any {
		results := []synced{}
		for _, object := range objects {
			one := []*unstructured.Unstructured{object}
			must(normalize.UnstructuredList(one))
			manager.SetOwnerLabels(one, "skills", "flux-system")
			changes, err := manager.ApplyAllStaged(context.Background(), one, options)
			result := synced{Drift: []string{}}
			if err != nil {
				result.Error = err.Error()
			} else {
				result.Did = string(changes.Entries[0].Action)
			}
			if result.Did == string(ssa.ConfiguredAction) {
				result.Drift = append(result.Drift, "server-side dry run")
			}
			results = append(results, result)
		}
		return results
	}
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
