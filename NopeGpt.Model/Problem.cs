namespace NopeGpt.Model;

/// <summary>Something wrong with a setting. Checks return all of them at once, so that a form or a command can show every one.</summary>
/// <param name="Field">The setting's name as it is written in JSON.</param>
/// <param name="Value">The value that was found.</param>
/// <param name="Message">What is wrong and the cure, in one sentence.</param>
public sealed record Problem(string Field, string Value, string Message)
{
    public override string ToString() => $"{Field} = {Value}: {Message}";
}
