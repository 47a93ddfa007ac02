{{/* Labels of every object of this chart. Takes (dict "root" $ "component" "operator"). */}}
{{- define "vingt.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: vingt
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
{{ include "vingt.selector" . }}
{{- end }}

{{/* The labels pods are selected by; they never change. */}}
{{- define "vingt.selector" -}}
app.kubernetes.io/name: {{ with .component }}vingt-{{ . }}{{ else }}vingt{{ end }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{- end }}

{{/* Image reference. Takes (dict "root" $ "name" "vingt-operator"). */}}
{{- define "vingt.image" -}}
{{- $tag := default .root.Chart.AppVersion .root.Values.image.tag -}}
{{- with .root.Values.image.registry }}{{ . }}/{{ end }}{{ .name }}:{{ $tag }}
{{- end }}

{{/* Pod security of everything but the agent: the profile "restricted". */}}
{{- define "vingt.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "vingt.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{/* User names of the operator and of its uninstall hook, as a CEL list. */}}
{{- define "vingt.cel.operators" -}}
['system:serviceaccount:{{ .Release.Namespace }}:vingt-operator', 'system:serviceaccount:{{ .Release.Namespace }}:vingt-cleanup']
{{- end }}

{{/* User names of what schedules pods and looks after claims, as a CEL list. */}}
{{- define "vingt.cel.claimControllers" -}}
['system:kube-scheduler', 'system:kube-controller-manager', 'system:serviceaccount:kube-system:resource-claim-controller'
{{- range .Values.policies.controlPlaneUsers }}, '{{ . }}'{{ end }}]
{{- end }}

{{/* User names of the controllers that make pods, and what makes those, out of templates, as a CEL list.
Without --use-service-account-credentials they are all system:kube-controller-manager. */}}
{{- define "vingt.cel.workloadControllers" -}}
['system:kube-controller-manager'
{{- range list "job-controller" "deployment-controller" "replicaset-controller" "statefulset-controller" "daemon-set-controller" "replication-controller" "cronjob-controller" }}, 'system:serviceaccount:kube-system:{{ . }}'{{ end }}
{{- range .Values.policies.controlPlaneUsers }}, '{{ . }}'{{ end }}]
{{- end }}

{{/* Name part of a MIG profile: + is not allowed in names. */}}
{{- define "vingt.profileName" -}}
{{- . | replace "+" "-" -}}
{{- end }}

{{/* A binding of a policy. Takes (dict "root" $ "name" "…" "actions" (list "Deny")). */}}
{{- define "vingt.policyBinding" -}}
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata:
  name: {{ .name }}
  labels:
    {{- include "vingt.labels" (dict "root" .root) | nindent 4 }}
spec:
  policyName: {{ .name }}
  validationActions: [{{ join ", " (default (list "Deny") .actions) }}]
{{- end }}
