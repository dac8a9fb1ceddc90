// The types of those who read what the chart renders, for JSON: an enum is its text there.

import type { Dashboard as AnyDashboard } from "@grafana/schema";
import type {
  FieldConfig as BarChartField,
  Options as BarChart,
} from "@grafana/schema/dist/esm/raw/composable/barchart/panelcfg/x/BarChartPanelCfg_types.gen";
import type { Options as BarGauge } from "@grafana/schema/dist/esm/raw/composable/bargauge/panelcfg/x/BarGaugePanelCfg_types.gen";
import type { Options as Stat } from "@grafana/schema/dist/esm/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen";
import type {
  FieldConfig as TableField,
  Options as Table,
} from "@grafana/schema/dist/esm/raw/composable/table/panelcfg/x/TablePanelCfg_types.gen";
import type {
  FieldConfig as TimeSeriesField,
  Options as TimeSeries,
} from "@grafana/schema/dist/esm/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen";

export type { ICertificate } from "@kubernetes-models/cert-manager/cert-manager.io/v1";
export type {
  IPrometheusRule,
  IServiceMonitor,
} from "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1";

type Written<T> = T extends string
  ? `${T}`
  : T extends object
    ? { [Key in keyof T]: Written<T[Key]> }
    : T;

export type Dashboard = Written<AnyDashboard>;
export interface Options {
  barchart: Written<BarChart>;
  bargauge: Written<BarGauge>;
  stat: Written<Stat>;
  table: Written<Table>;
  timeseries: Written<TimeSeries>;
}
export interface Custom {
  barchart: Written<BarChartField>;
  table: Partial<Written<TableField>>;
  timeseries: Written<TimeSeriesField>;
}
