using NopeGpt.Model;

namespace NopeGpt.Jobs;

/// <summary>Bad input with everything that is wrong with it.</summary>
public sealed class ProblemsException(IReadOnlyList<Problem> problems) : Exception(Describe(problems))
{
    public IReadOnlyList<Problem> Problems { get; } = problems;

    private static string Describe(IReadOnlyList<Problem> problems) =>
        string.Join("\n", problems.Select(p => $"{p.Field} = {(p.Value.Length == 0 ? "(empty)" : p.Value)}: {p.Message}"));
}
