using System.Text.Json;
using System.Text.Json.Nodes;
using NopeGpt.Jobs.Commands;
using NopeGpt.Jobs.Configuration;
using NopeGpt.Model;

namespace NopeGpt.Jobs.Queue;

/// <summary>A setting with the values that a sweep gives it.</summary>
/// <param name="Texts">The values as people write them.</param>
internal sealed record AxisValues(Setting Setting, IReadOnlyList<object?> Values, IReadOnlyList<string> Texts)
{
    private static readonly Type[] WholeTypes = [typeof(int), typeof(long), typeof(ulong)];

    /// <summary>Reads an axis for a config. Everything wrong is added to the problems, under the axis's name.</summary>
    /// <returns>Null where something is wrong.</returns>
    public static AxisValues? Read(SweepAxis axis, RunConfig start, List<Problem> problems)
    {
        if (SettingNames.Find(axis.Name, start.Kind, problems) is not var (setting, reword)) return null;
        List<Problem> wrong = [];
        JsonElement? json = axis.Values;
        string? text = axis.Text;
        if (json is { ValueKind: JsonValueKind.String } words) (json, text) = (null, words.GetString());
        if (json is null && text?.StartsWith('[') == true) json = Array(text, setting.Path, wrong);
        List<object?> values = [];
        if (json is { ValueKind: JsonValueKind.Array } array)
        {
            foreach (JsonElement value in array.EnumerateArray()) Take(FromJson(start, setting, value, reword), values, wrong);
        }
        else if (json is { } other) wrong.Add(new Problem(setting.Path, Shown(other.GetRawText()), "must be a JSON array of values, or a text with a range"));
        else if (wrong.Count == 0) FromText(start, setting, text, reword, values, wrong);
        if (wrong.Count == 0 && values.Count == 0) wrong.Add(new Problem(setting.Path, Shown(text ?? "[]"), $"has no values: use {SweepAxis.Forms}"));
        string[] texts = [.. values.Select(RunOptions.Words)];
        if (wrong.Count == 0) Twice(setting, texts, wrong);
        problems.AddRange(wrong);
        return wrong.Count == 0 ? new AxisValues(setting, values, texts) : null;
    }

    private static void FromText(RunConfig start, Setting setting, string? text, Func<string, string> reword, List<object?> values, List<Problem> wrong)
    {
        if (text is null)
        {
            wrong.Add(new Problem(setting.Path, "", $"needs values: {setting.Name}=VALUES, with {SweepAxis.Forms}"));
            return;
        }
        if (setting.Type == typeof(IReadOnlyList<string>))
        {
            wrong.Add(new Problem(setting.Path, Shown(text), $"is a list in each run: give a JSON array of lists, such as {setting.Name}=[[\"a\"],[\"b\",\"c\"]]"));
            return;
        }
        bool whole = WholeTypes.Contains(setting.Type), number = whole || setting.Type == typeof(double);
        foreach (string part in text.Split(',').Select(p => p.Trim()))
        {
            if (part.Length == 0)
            {
                wrong.Add(new Problem(setting.Path, Shown(text), "has an empty value: leave out the comma, or write an empty text as [\"\"]"));
                continue;
            }
            try
            {
                foreach (string value in number && AxisRange.IsRange(part) ? AxisRange.Points(part, whole, Sweep.MostRuns) : [part]) Take(FromWord(start, setting, reword(value)), values, wrong);
            }
            catch (FormatException e) { wrong.Add(new Problem(setting.Path, Shown(part), e.Message)); }
        }
    }

    private static (bool Right, object? Value, List<Problem> Bad) FromJson(RunConfig start, Setting setting, JsonElement value, Func<string, string> reword)
    {
        if (value.GetRawText() is var said && reword(said) is var meant && meant != said) return FromWord(start, setting, meant);
        JsonNode? nested = JsonNode.Parse(value.GetRawText());
        foreach (string name in setting.Path.Split('.').Reverse()) nested = new JsonObject { [name] = nested };
        using JsonDocument document = JsonDocument.Parse(nested!.ToJsonString());
        List<Problem> bad = [];
        RunConfig with = Settings.Bind(start, document.RootElement, bad);
        return (bad.Count == 0, Settings.Get(with, setting), bad);
    }

    private static (bool Right, object? Value, List<Problem> Bad) FromWord(RunConfig start, Setting setting, string word)
    {
        List<Problem> bad = [];
        RunConfig with = Settings.BindText(start, setting.Path, word, bad);
        return (bad.Count == 0, Settings.Get(with, setting), bad);
    }

    private static void Take((bool Right, object? Value, List<Problem> Bad) read, List<object?> values, List<Problem> wrong)
    {
        if (read.Right) values.Add(read.Value);
        else wrong.AddRange(read.Bad);
    }

    private static JsonElement? Array(string text, string path, List<Problem> wrong)
    {
        try
        {
            using JsonDocument document = JsonDocument.Parse(text);
            return document.RootElement.Clone();
        }
        catch (JsonException e)
        {
            wrong.Add(new Problem(path, Shown(text), $"begins like a JSON array and is none ({e.Message.Split(" LineNumber:")[0].TrimEnd('.')}): texts in it stand in double quotes"));
            return null;
        }
    }

    private static void Twice(Setting setting, string[] texts, List<Problem> wrong)
    {
        foreach (IGrouping<string, int> same in Enumerable.Range(0, texts.Length).GroupBy(i => texts[i], StringComparer.Ordinal).Where(g => g.Count() > 1))
            wrong.Add(new Problem(setting.Path, Shown(same.Key), $"is there more than once, as values {string.Join(" and ", same.Select(i => i + 1))}: give each once"));
    }

    private static string Shown(string text) => text.Length <= 80 ? text : text[..77] + "...";
}
