{{- define "opportune.name" -}}
{{ .Release.Name | trunc 50 | trimSuffix "-" }}-opportune
{{- end }}

{{- define "opportune.labels" -}}
app.kubernetes.io/name: opportune
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "opportune.selector" -}}
app.kubernetes.io/name: opportune
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "opportune.database" -}}
- name: OPPORTUNE_DATABASE
  valueFrom:
    secretKeyRef:
      name: {{ .Values.database.secret }}
      key: {{ .Values.database.key }}
{{- end }}

{{- define "opportune.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "opportune.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: ["ALL"]
{{- end }}

{{- define "opportune.mounts" -}}
- name: store
  mountPath: /var/lib/opportune
- name: temporary
  mountPath: /tmp
{{- end }}

{{- define "opportune.volumes" -}}
- name: store
  persistentVolumeClaim:
    claimName: {{ .Values.store.existingClaim | default (include "opportune.name" .) }}
- name: temporary
  emptyDir: {}
{{- end }}
