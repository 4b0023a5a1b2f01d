namespace NopeGpt.Jobs.Queue;

/// <summary>Rows from run folders.</summary>
internal static class RunImport
{
    /// <summary>The row of a run that has not begun.</summary>
    public static RunRow Row(RunRecord record) => new()
    {
        Id = record.Id,
        Name = record.Config.Name,
        Kind = record.Config.Kind,
        Created = record.Created,
        After = string.Join(',', record.After),
        MaxSteps = record.Config.Kind == RunKind.Pretrain ? record.Config.Training.MaxSteps : 100,
    };
}
