namespace NopeGpt.Data.Documents.Stories;

/// <summary>Everything that the stories are made of, parsed once from the text files embedded in this assembly. A mistake in them throws FormatException.</summary>
internal sealed class StoryGrammar
{
    private static readonly string[] _plotFiles = ["plots-search.txt", "plots-heart.txt", "plots-town.txt"];

    // After the list above: static fields are set in the order in which they stand.
    public static StoryGrammar Instance { get; } = new();

    private readonly Dictionary<string, int> _ruleNumbers = [];

    private StoryGrammar()
    {
        List<(string Name, List<string> Lines)> rules = Blocks(Lines("common.txt"), "rule ");
        foreach ((string name, _) in rules) _ruleNumbers.Add(name, _ruleNumbers.Count);
        Rules = [.. rules.Select(rule => Templates(rule.Lines))];
        Lexicon = new Lexicon(Lines("lexicon.txt"), Template);
        Dictionary<string, Turn[]> shared = Blocks(Lines("turns.txt"), "turns ").ToDictionary(block => block.Name, block => Turns(block.Lines));
        Plots = [.. _plotFiles.SelectMany(file => Blocks(Lines(file), "plot ")).Select(block => ReadPlot(block.Name, block.Lines, shared))];
    }

    public Lexicon Lexicon { get; }
    public Template[][] Rules { get; }
    public Plot[] Plots { get; }

    public int Rule(string name) => _ruleNumbers.TryGetValue(name, out int number) ? number : throw new FormatException($"no rule '{name}' in the story grammar");

    private Template Template(string source) => Stories.Template.Parse(source, Rule);

    private Template[] Templates(IEnumerable<string> lines) =>
        [.. lines.Select(line => line.StartsWith("- ", StringComparison.Ordinal) ? Template(line[2..]) : throw new FormatException($"expected '- ' at '{line}' in the story grammar"))];

    private Plot ReadPlot(string name, List<string> lines, Dictionary<string, Turn[]> shared)
    {
        List<Wish> wishes = [];
        List<Turn> turns = [];
        string? things = null, creatures = null;
        string spots = "spots_out";
        Dictionary<string, List<string>> parts = [];
        List<string>? part = null;
        foreach (string line in lines)
        {
            string[] words = line.Split(' ', 2);
            switch (words[0])
            {
                case "wish":
                    string[] fields = words[1].Split('|', StringSplitOptions.TrimEntries);
                    wishes.Add(new Wish(Template(fields[0]), Template(fields[1])));
                    break;
                case "turns": turns.AddRange(shared[words[1]]); break;
                case "things": things = words[1]; break;
                case "creatures": creatures = words[1]; break;
                case "spots": spots = "spots_" + words[1]; break;
                case "turn": parts.Add(line, part = []); break;
                case "want" or "try" or "help" or "end": parts.Add(words[0], part = []); break;
                default: (part ?? throw new FormatException($"'{line}' stands before the first part of plot '{name}'")).Add(line); break;
            }
        }
        foreach ((string key, List<string> body) in parts)
            if (key.StartsWith("turn ", StringComparison.Ordinal)) turns.Add(ReadTurn(key[5..], body));
        return new Plot(name, [.. wishes], [.. turns], Templates(parts["want"]), Templates(parts["try"]), Templates(parts["help"]), Templates(parts["end"]),
            Lexicon.Things("things", things), Lexicon.Things("creatures", creatures), Lexicon.Plain(spots));
    }

    private Turn[] Turns(List<string> lines) => [.. Blocks(lines, "turn ").Select(block => ReadTurn(block.Name, block.Lines))];

    private Turn ReadTurn(string name, List<string> lines)
    {
        int solve = lines.IndexOf("solve");
        if (solve < 2 || lines[0] != "meet") throw new FormatException($"turn '{name}' needs a part 'meet' and a part 'solve'");
        return new Turn(name, Templates(lines[1..solve]), Templates(lines[(solve + 1)..]));
    }

    private static List<(string Name, List<string> Lines)> Blocks(IEnumerable<string> lines, string opening)
    {
        List<(string, List<string>)> blocks = [];
        foreach (string line in lines)
        {
            if (line.StartsWith(opening, StringComparison.Ordinal)) blocks.Add((line[opening.Length..], []));
            else if (blocks.Count == 0) throw new FormatException($"'{line}' stands before the first '{opening.Trim()}'");
            else blocks[^1].Item2.Add(line);
        }
        return blocks;
    }

    private static List<string> Lines(string file)
    {
        using Stream stream = typeof(StoryGrammar).Assembly.GetManifestResourceStream("Stories/" + file) ?? throw new FormatException($"the assembly has no {file}");
        using StreamReader reader = new(stream);
        return [.. reader.ReadToEnd().Split('\n').Select(line => line.Trim()).Where(line => line.Length > 0 && line[0] != '#')];
    }
}
