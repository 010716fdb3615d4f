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

{{/* All pods of the release: the operator's, and those of hooks. */}}
{{- define "skillupdate.ours" -}}
app.kubernetes.io/name: {{ include "skillupdate.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "skillupdate.selector" -}}
{{ include "skillupdate.ours" . }}
app.kubernetes.io/component: operator
{{- end -}}

{{- define "skillupdate.labels" -}}
{{ include "skillupdate.labelsOf" (list . "operator") }}
{{- end -}}

{{/* Of a component beside the operator: call with (list . "test"). */}}
{{- define "skillupdate.labelsOf" -}}
{{- $root := index . 0 -}}
{{ include "skillupdate.ours" $root }}
app.kubernetes.io/component: {{ index . 1 }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: skillupdate
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" }}
{{- with $root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
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
{{- with $root.Values.image.registry }}{{ . }}/{{ end -}}
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
  verbs: [get, list, watch, patch]  # patch: the annotations sdft.dev/weights and sdft.dev/version
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
{{- with .adapters }}
- apiGroups: [""]
  resources: [configmaps]
  resourceNames: {{ toJson . }}
  verbs: [get, patch]  # which adapter the target's pods load
{{- end }}
{{- end }}
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create]
{{- end -}}

{{/* Where and as whom a pod of the release runs. */}}
{{- define "skillupdate.podSpec" -}}
serviceAccountName: {{ include "skillupdate.serviceAccountName" . }}
automountServiceAccountToken: true
enableServiceLinks: false
securityContext:
  {{- toYaml .Values.podSecurityContext | nindent 2 }}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
volumes:
- {name: tmp, emptyDir: {sizeLimit: 64Mi}}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* What the containers of the release's pods have in common. */}}
{{- define "skillupdate.container" -}}
image: {{ include "skillupdate.image" (list . .Values.image.operator) }}
{{- with .Values.image.pullPolicy }}
imagePullPolicy: {{ . }}
{{- end }}
env:
{{ include "skillupdate.environment" . }}
resources:
  {{- toYaml .Values.resources | nindent 2 }}
securityContext:
  {{- toYaml .Values.securityContext | nindent 2 }}
volumeMounts:
- {name: tmp, mountPath: /tmp}
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
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
