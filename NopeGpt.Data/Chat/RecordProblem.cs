namespace NopeGpt.Data.Chat;

/// <summary>What is wrong with a record, so that it can be found and put right.</summary>
/// <param name="Field">the field, as a path: messages[2].role; empty for the record itself</param>
/// <param name="Problem">what is wrong with it</param>
/// <param name="Cure">what to do</param>
/// <param name="Reason">what it counts as</param>
public sealed record RecordProblem(string Field, string Problem, string Cure, DropReason Reason = DropReason.BadRecord)
{
    /// <summary>The file as it is named to people.</summary>
    public string File { get; init; } = "";

    /// <summary>Where in the file, from 1.</summary>
    public long Row { get; init; }

    public override string ToString() => $"{File}, row {Row}: {(Field.Length == 0 ? "the record" : $"field {Field}")} {Problem}; {Cure}.";
}

/// <summary>Thrown within the readers of records, which turn it into their answer.</summary>
internal sealed class RecordException(RecordProblem problem) : Exception(problem.ToString())
{
    public RecordException(string field, string problem, string cure, DropReason reason = DropReason.BadRecord) : this(new RecordProblem(field, problem, cure, reason))
    {
    }

    public RecordProblem Problem { get; } = problem;
}
