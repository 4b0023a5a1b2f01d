namespace NopeGpt.Data.Documents.Stories;

/// <summary>The words of the stories, from lexicon.txt.</summary>
internal sealed class Lexicon
{
    private readonly Dictionary<string, List<string[]>> _sections = [];

    public Lexicon(IEnumerable<string> lines, Func<string, Template> template)
    {
        List<string[]>? section = null;
        foreach (string line in lines)
        {
            if (line.StartsWith("section ", StringComparison.Ordinal)) _sections.Add(line[8..], section = []);
            else (section ?? throw new FormatException("a line before the first section of the lexicon")).Add(line.Split('|', StringSplitOptions.TrimEntries));
        }
        People = Names("girls", "boys");
        Animals = Names("shes", "hes");
        foreach (string[] row in _sections["kinds"])
        {
            Character[] forms = [.. List(row[2]).Select(before => new Character("", Pronouns.Female, row[0], Thing.WithArticle($"{before} {row[0]}"), row[3], row[3] + "s"))];
            if (row[0] == "girl") Girl = forms;
            else if (row[0] == "boy") Boy = forms;
            else _animalKinds.Add(forms);
        }
        PeopleElders = [.. _sections["elders_people"].SelectMany(row => List(row[2]).Select(name => Elder($"{row[0]} {name}", row[1])))];
        AnimalElders = [.. _sections["elders_animals"].Select(row => Elder(row[0], row[1]))];
        Traits = [.. _sections["traits"].Select(row => new Trait(row[0], template(row[1]), template(row[2])))];
        Places = [.. _sections["places"].Select(row => (Place[])[.. List(row[2]).Select(before => new Place($"the {before} {row[0]}", $"{row[1]} the {before} {row[0]}"))])];
        PeopleHomes = Plain("homes_people");
        AnimalHomes = Plain("homes_animals");
        Whens = Plain("whens");
        Foods = Plain("foods");
        Sounds = Plain("sounds");
        Hides = Plain("hides");
    }

    public (string[] Female, string[] Male) People { get; }
    public (string[] Female, string[] Male) Animals { get; }
    public Character[] Girl { get; } = [];
    public Character[] Boy { get; } = [];
    public IReadOnlyList<Character[]> AnimalKinds => _animalKinds;
    public Character[] PeopleElders { get; }
    public Character[] AnimalElders { get; }
    public Trait[] Traits { get; }
    public Place[][] Places { get; }
    public string[] PeopleHomes { get; }
    public string[] AnimalHomes { get; }
    public string[] Whens { get; }
    public string[] Foods { get; }
    public string[] Sounds { get; }
    public string[] Hides { get; }

    private readonly List<Character[]> _animalKinds = [];

    /// <summary>Nouns with the words that go before them; only those with the given mark in the third column, or all.</summary>
    public Thing[][] Things(string section, string? mark)
    {
        Thing[][] things = [.. _sections[section]
            .Where(row => mark is null || (row.Length > 2 && List(row[2]).Contains(mark)))
            .Select(row => (Thing[])[.. List(row[1]).Select(before => new Thing(row[0], before))])];
        return things.Length > 0 ? things : throw new FormatException($"nothing in the lexicon's section '{section}' is marked '{mark}'");
    }

    /// <summary>A section whose lines are used as they stand.</summary>
    public string[] Plain(string section) => [.. _sections[section].Select(row => row[0])];

    private (string[], string[]) Names(string female, string male) =>
        ([.. _sections[female].SelectMany(row => List(row[0]))], [.. _sections[male].SelectMany(row => List(row[0]))]);

    private static Character Elder(string name, string pronoun) => new(name, Pronouns.Of(pronoun), "", "", "", "");

    private static string[] List(string words) => words.Split(',', StringSplitOptions.TrimEntries);
}
