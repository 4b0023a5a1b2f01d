namespace NopeGpt.Jobs;

/// <summary>run.json: who a run is and what it was told to do. The queue and the pages never change the config after the start.</summary>
/// <param name="Id">Sortable by creation: 20261123-031500-7f3a.</param>
/// <param name="After">Runs that must have completed before this one starts.</param>
public sealed record RunRecord(int FormatVersion, string Id, DateTimeOffset Created, IReadOnlyList<string> After, RunConfig Config)
{
    public const int CurrentFormat = 1;
}
