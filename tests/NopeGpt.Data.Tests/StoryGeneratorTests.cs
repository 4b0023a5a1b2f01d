using System.Diagnostics;
using System.Text.RegularExpressions;
using NopeGpt.Data.Documents;
using NopeGpt.Data.Documents.Stories;
using NopeGpt.Tests;

namespace NopeGpt.Data.Tests;

public sealed partial class StoryGeneratorTests
{
    private const int Many = 5000;

    [Fact]
    public void A_story_is_a_function_of_seed_and_index()
    {
        List<string> stories = [.. StoryGenerator.Stories(42).Take(200)];
        for (int i = stories.Count - 1; i >= 0; i--) Assert.Equal(stories[i], StoryGenerator.Story(42, i));
        Assert.Equal(200, stories.Distinct().Count());
        Assert.NotEqual(stories[0], StoryGenerator.Story(43, 0));
    }

    [Fact]
    public void Stories_have_80_to_250_words_and_a_vocabulary_of_more_than_1500()
    {
        HashSet<string> vocabulary = [];
        foreach (string story in StoryGenerator.Stories(1).Take(Many))
        {
            int words = 0;
            foreach (Match word in Word().Matches(story))
            {
                words++;
                vocabulary.Add(word.Value.ToUpperInvariant());
            }
            Assert.True(words is >= 80 and <= 250, $"{words} words: {story}");
        }
        Assert.True(vocabulary.Count >= 1500, $"{vocabulary.Count} distinct words");
    }

    [Fact]
    public void All_plots_turns_and_beats_are_told()
    {
        HashSet<string> plots = [], turns = [];
        for (int i = 0; i < Many; i++)
        {
            StoryFacts facts = StoryGenerator.Facts(5, i);
            plots.Add(facts.Plot.Name);
            turns.Add(facts.Plot.Name + "/" + facts.Turn.Name);
        }
        Assert.True(StoryGrammar.Instance.Plots.Length >= 8);
        Assert.Equal(StoryGrammar.Instance.Plots.Length, plots.Count);
        Assert.Equal(StoryGrammar.Instance.Plots.Sum(plot => plot.Turns.Length), turns.Count);
    }

    [Fact]
    public void Only_the_people_of_the_story_are_named_and_the_hero_and_the_friend_always()
    {
        Lexicon lexicon = StoryGrammar.Instance.Lexicon;
        HashSet<string> names = [.. lexicon.People.Female, .. lexicon.People.Male, .. lexicon.Animals.Female, .. lexicon.Animals.Male];
        for (int i = 0; i < Many; i++)
        {
            StoryFacts facts = StoryGenerator.Facts(6, i);
            string story = StoryGenerator.Story(6, i);
            Assert.Contains(facts.Hero.Name, story, StringComparison.Ordinal);
            Assert.Contains(facts.Friend.Name, story, StringComparison.Ordinal);
            string[] elder = facts.Elder.Name.Split(' ');
            foreach (Match word in InnerCapital().Matches(story))
                if (names.Contains(word.Value)) Assert.True(word.Value == facts.Hero.Name || word.Value == facts.Friend.Name || elder.Contains(word.Value), $"{word.Value} is a stranger in: {story}");
        }
    }

    [Fact]
    public void The_pronouns_of_a_story_with_one_gender_are_of_that_gender()
    {
        int checkedStories = 0;
        for (int i = 0; i < Many; i++)
        {
            StoryFacts facts = StoryGenerator.Facts(8, i);
            // Other people, such as a ferryman or a goose, come in the turns of the road only; the race has a winner.
            if (facts.Hero.Pronouns != facts.Friend.Pronouns || facts.Hero.Pronouns != facts.Elder.Pronouns || facts.Plot.Name is "lost" or "journey" or "race") continue;
            string wrong = facts.Hero.Pronouns == Pronouns.Female ? @"\b(he|him|his|himself)\b" : @"\b(she|her|herself)\b";
            string story = StoryGenerator.Story(8, i);
            Assert.False(Regex.IsMatch(story, wrong, RegexOptions.IgnoreCase), story);
            checkedStories++;
        }
        Assert.True(checkedStories > Many / 10);
    }

    [Fact]
    public void Things_keep_their_words_throughout_a_story()
    {
        for (int i = 0; i < Many; i++)
        {
            StoryFacts facts = StoryGenerator.Facts(9, i);
            string story = StoryGenerator.Story(9, i);
            foreach (Thing[] noun in StoryGrammar.Instance.Lexicon.Things("things", mark: null))
                foreach (Thing other in noun)
                    if (other.Full != facts.Thing.Full && other.Noun == facts.Thing.Noun) Assert.DoesNotContain(" " + other.Full, story, StringComparison.Ordinal);
            Assert.Equal(3, new HashSet<string> { facts.Spot1, facts.Spot2, facts.Spot3 }.Count);
        }
    }

    [Fact]
    public void The_end_refers_to_what_was_wished_or_lost()
    {
        int named = 0;
        for (int i = 0; i < Many; i++)
        {
            StoryFacts facts = StoryGenerator.Facts(10, i);
            string story = StoryGenerator.Story(10, i);
            string end = story[story.LastIndexOf("\n\n", StringComparison.Ordinal)..];
            string[] signs = ["wish", "want", "dream", "help", "make", "won", "win", "mended", "mine", "sound", "dark", "share", "glad", "Look", "friend", facts.Thing.Noun, facts.Elder.Name];
            if (signs.Any(sign => end.Contains(sign, StringComparison.Ordinal))) named++;
        }
        Assert.True(named > Many * 99 / 100, $"{named} of {Many}");
    }

    [Fact]
    public void Articles_capitals_and_punctuation_are_right()
    {
        foreach (string story in StoryGenerator.Stories(11).Take(Many))
        {
            Assert.False(WrongArticle().IsMatch(story), $"{WrongArticle().Match(story).Value} in: {story}");
            Assert.False(WrongMark().IsMatch(story), $"{WrongMark().Match(story).Value} in: {story}");
            Assert.False(SmallStart().IsMatch(story), $"{SmallStart().Match(story).Value} in: {story}");
            foreach (string paragraph in story.Split("\n\n"))
            {
                Assert.True(char.IsUpper(paragraph[0]) || paragraph[0] == '"', paragraph);
                Assert.Contains(paragraph[^1], ".!?\"");
                Assert.True(paragraph.Count(c => c == '"') % 2 == 0, $"quotes in: {paragraph}");
            }
        }
    }

    [Theory]
    [InlineData(".txt")]
    [InlineData(".jsonl")]
    public void A_corpus_reads_back_as_the_stories_and_ends_at_the_first_story_that_reaches_the_size(string extension)
    {
        using TemporaryFolder folder = new();
        string path = folder["corpus" + extension];
        List<double> progress = [];
        long count = StoryGenerator.WriteCorpus(path, 2_500_000, 3, progress.Add);
        long length = new FileInfo(path).Length;
        Assert.InRange(length, 2_500_000, 2_500_000 + 2_000);
        Assert.Equal(StoryGenerator.Stories(3).Take((int)count), TextFiles.Documents(path));
        Assert.Equal(1, progress[^1]);
        Assert.Equal(progress.Order(), progress);
        Assert.Single(Directory.GetFiles(folder.Path));
    }

    [Fact]
    public void A_corpus_of_one_byte_has_one_story_and_another_ending_is_refused()
    {
        using TemporaryFolder folder = new();
        Assert.Equal(1, StoryGenerator.WriteCorpus(folder["one.txt"], 1, 3));
        Assert.Equal([StoryGenerator.Story(3, 0)], TextFiles.Documents(folder["one.txt"]));
        Assert.Contains(".jsonl", Assert.Throws<ArgumentException>(() => StoryGenerator.WriteCorpus(folder["one.csv"], 1, 3)).Message, StringComparison.Ordinal);
        Assert.Throws<ArgumentException>(() => StoryGenerator.WriteCorpus(folder["none.txt"], 0, 3));
    }

    [Fact]
    public void A_cancelled_corpus_leaves_no_file()
    {
        using TemporaryFolder folder = new();
        using CancellationTokenSource cancel = new();
        Assert.Throws<OperationCanceledException>(() => StoryGenerator.WriteCorpus(folder["c.txt"], long.MaxValue, 3, _ => cancel.Cancel(), cancel.Token));
        Assert.Empty(Directory.GetFiles(folder.Path));
    }

    [Fact]
    public void Stories_are_made_at_more_than_5_MB_a_second()
    {
        using TemporaryFolder folder = new();
        StoryGenerator.WriteCorpus(folder["warm.txt"], 1_000_000, 1);
        double best = 0;
        for (int round = 0; round < 3; round++)
        {
            Stopwatch watch = Stopwatch.StartNew();
            StoryGenerator.WriteCorpus(folder["speed.txt"], 8_000_000, 1);
            best = Math.Max(best, 8 / watch.Elapsed.TotalSeconds);
        }
        Assert.True(best > 5, $"{best:F1} MB/s");
    }

    [Theory]
    [InlineData("a {nothing} here", "unknown slot 'nothing'")]
    [InlineData("a {%nowhere} here", "no rule 'nowhere'")]
    [InlineData("a [b|c", "'[' without ']'")]
    [InlineData("a {He", "'{' without '}'")]
    [InlineData("a ] b", "']' without '['")]
    public void A_mistake_in_the_grammar_is_named(string template, string message)
    {
        string said = Record(template);
        Assert.Contains(message, said, StringComparison.Ordinal);

        static string Record(string template) => Assert.Throws<FormatException>(() => Template.Parse(template, StoryGrammar.Instance.Rule)).Message;
    }

    [GeneratedRegex(@"[A-Za-z][A-Za-z'-]*")]
    private static partial Regex Word();

    [GeneratedRegex(@"(?<=[a-z,] )[A-Z][a-z]+")]
    private static partial Regex InnerCapital();

    [GeneratedRegex(@"\b[Aa] (?!one\b|one-|uni|use)[aeiou]\w*|\b[Aa]n [^aeiou]\w*")]
    private static partial Regex WrongArticle();

    [GeneratedRegex(@"  |[{}\[\]|%_]|\.\.|,,| [,.!?]|\n{3}|\bundefined\b")]
    private static partial Regex WrongMark();

    [GeneratedRegex(@"\. [a-z]\w*|\.\""? [a-z]\w*")]
    private static partial Regex SmallStart();
}
