{{- define "skillupdate.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/* At most 44 characters, which leaves room for -release-finalizers within 63. */}}
{{- define "skillupdate.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 44 | trimSuffix "-" -}}
{{- else if contains (include "skillupdate.name" .) .Release.Name -}}
{{- .Release.Name | trunc 44 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "skillupdate.name" .) | trunc 44 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "skillupdate.selector" -}}
app.kubernetes.io/name: {{ include "skillupdate.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end -}}

{{- define "skillupdate.labels" -}}
{{ include "skillupdate.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: skillupdate
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "skillupdate.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "skillupdate.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- required "serviceAccount.name is needed where serviceAccount.create is false" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* One image reference: call with (list . .Values.image.operator). */}}
{{- define "skillupdate.image" -}}
{{- $root := index . 0 -}}{{- $image := index . 1 -}}
{{- if $image.digest -}}
{{ $image.repository }}@{{ $image.digest }}
{{- else -}}
{{ $image.repository }}:{{ $image.tag | default $root.Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{/* What the operator may do, in one namespace or in all: no Secrets, no Namespaces, no wildcards, and of a Deployment only a patch. */}}
{{- define "skillupdate.rules" -}}
- apiGroups: [sdft.dev]
  resources: [skillupdates]
  verbs: [get, list, watch, patch]  # patch: the finalizer
- apiGroups: [sdft.dev]
  resources: [skillupdates/status]
  verbs: [patch]
- apiGroups: [sdft.dev]
  resources: [skillupdates/finalizers]
  verbs: [update]  # to be an owner that blocks deletion, where OwnerReferencesPermissionEnforcement is on
- apiGroups: [batch]
  resources: [jobs]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [jobset.x-k8s.io]
  resources: [jobsets]
  verbs: [get, list, watch, create, patch, delete]  # training on several nodes
- apiGroups: [kueue.x-k8s.io]
  resources: [workloads]
  verbs: [list]  # why a training waits in a queue
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch, delete]  # delete: a pod that hangs
- apiGroups: [apps]
  resources: [deployments]
  verbs: [get, list, watch, patch]  # patch: the one annotation sdft.dev/weights
{{- with .Values.servingTargets }}
{{- if .statefulSet }}
- apiGroups: [apps]
  resources: [statefulsets]
  verbs: [get, list, watch, patch]  # as for Deployments
{{- end }}
{{- if .leaderWorkerSet }}
- apiGroups: [leaderworkerset.x-k8s.io]
  resources: [leaderworkersets]
  verbs: [get, list, watch, patch]
{{- end }}
{{- if .rollout }}
- apiGroups: [argoproj.io]
  resources: [rollouts]
  verbs: [get, list, watch, patch]
{{- end }}
{{- if .inferenceService }}
- apiGroups: [serving.kserve.io]
  resources: [inferenceservices]
  verbs: [get, list, watch, patch]
{{- end }}
{{- end }}
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create]
{{- end -}}

{{- define "skillupdate.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "skillupdate.securityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{- define "skillupdate.environment" -}}
- {name: SKILL_TRAINER_IMAGE, value: {{ include "skillupdate.image" (list . .Values.image.trainer) | quote }}}
- {name: SKILL_STORE_IMAGE, value: {{ include "skillupdate.image" (list . .Values.image.store) | quote }}}
- {name: SKILL_IMAGE_PULL_POLICY, value: {{ .Values.image.pullPolicy | quote }}}
- {name: SKILL_NAMESPACES, value: {{ join "," .Values.watchNamespaces | quote }}}
- {name: SKILL_PROMETHEUS_URL, value: {{ .Values.prometheus.url | quote }}}
- {name: SKILL_LOG_FORMAT, value: {{ .Values.logFormat | quote }}}
- {name: SKILL_LOG_LEVEL, value: {{ .Values.logLevel | quote }}}
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* The limits of one namespace, or of all that have none of their own: call with (list . "namespace" $limits $selector). */}}
{{- define "skillupdate.limits" -}}
{{- $root := index . 0 }}{{ $namespace := index . 1 }}{{ $limits := index . 2 }}{{ $selector := index . 3 }}
{{- $policy := include "skillupdate.fullname" $root }}
{{- $name := ternary (printf "%s-limits-%s" $policy $namespace) (printf "%s-limits" $policy) (ne $namespace "") }}
---
apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ $name }}
  namespace: {{ $root.Release.Namespace }}
  labels:
    {{- include "skillupdate.labels" $root | nindent 4 }}
data:
  {{- range $key, $value := $limits }}
  {{ $key }}: {{ kindIs "slice" $value | ternary (join "\n" $value) (toString $value) | quote }}
  {{- end }}
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata:
  name: {{ $name }}
  labels:
    {{- include "skillupdate.labels" $root | nindent 4 }}
spec:
  policyName: {{ $policy }}
  validationActions: {{ toJson $root.Values.admissionPolicy.actions }}
  paramRef: {name: {{ $name }}, namespace: {{ $root.Release.Namespace }}, parameterNotFoundAction: Deny}
  {{- if $selector.values }}
  matchResources:
    namespaceSelector:
      matchExpressions: [{{ toJson $selector }}]
  {{- end }}
{{- end -}}
