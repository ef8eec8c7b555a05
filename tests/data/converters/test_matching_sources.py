"""ScienceQA, AI2D, A-OKVQA, Geometry3K, VSR and FigureQA, each in its own layout and with its quirks."""

from __future__ import annotations

import json

from native_layouts import picture_bytes, put_hub, put_json, put_lines, put_picture


def test_scienceqa_rows_without_a_picture_are_left_out_and_hints_go_ahead(tmp_path, run):
    problems = {
        "4": {
            "question": "Which is a mammal?",
            "choices": ["frog", "bat"],
            "answer": 1,
            "hint": "Mammals have fur.",
            "image": "image.png",
            "subject": "natural science",
            "grade": "grade2",
            "split": "train",
            "solution": "The bat, because ...",
        },
        "7": {
            "question": "2 + 2?",
            "choices": ["4", "5"],
            "answer": 0,
            "hint": "",
            "image": None,
            "split": "train",
        },
        "9": {
            "question": "Held out?",
            "choices": ["a cat", "no"],
            "answer": 0,
            "hint": "",
            "image": "image.png",
            "split": "test",
        },
    }
    put_json(tmp_path / "problems.json", problems)
    put_json(tmp_path / "pid_splits.json", {"train": ["4", "7"], "test": ["9"]})
    put_picture(tmp_path / "images/train/4/image.png", 20, 10)
    records, skipped = run("scienceqa", tmp_path)
    (record,) = records.values()
    assert record.id == "scienceqa-train-4"
    assert record.question == "Mammals have fur.\nWhich is a mammal?\n(A) frog\n(B) bat"
    assert (record.answer, record.choices, record.image_sizes) == ("B", ("frog", "bat"), ((20, 10),))
    assert json.loads(record.meta) == {"subject": "natural science", "grade": "grade2"}
    assert "solution" not in record.meta and "because" not in record.question
    assert skipped == {"has no picture": 1}


def test_scienceqa_hub_form(tmp_path, run):
    image = {"bytes": picture_bytes(5, 9), "path": None}
    rows = [
        {"image": image, "question": "Which?", "choices": ["up", "down"], "answer": 0, "hint": ""},
        {"image": None, "question": "Which?", "choices": ["up", "down"], "answer": 0, "hint": ""},
        {"image": image, "question": "Whose?", "choices": ["up", "down", "x"], "answer": 3, "hint": None},
    ]
    put_hub(tmp_path / "data/train-00000-of-00001.parquet", rows)
    put_hub(tmp_path / "data/test-00000-of-00001.parquet", rows)
    records, skipped = run("scienceqa", tmp_path)
    assert list(records) == ["scienceqa-train-train-00000-of-00001-000000"]
    assert skipped == {"has no picture": 1, "right option is not among its options": 1}
    (record,) = records.values()
    assert record.images == (image["bytes"],) and record.image_sizes == ((5, 9),)


def test_ai2d_letters_of_the_diagram_use_its_lettered_picture_and_no_letters_of_our_own(tmp_path, run):
    put_json(
        tmp_path / "ai2d/questions/7.png.json",
        {
            "imageName": "7.png",
            "questions": {
                "Which label shows the leaf?": {
                    "abcLabel": True,
                    "answerTexts": ["F", "B", "A", "C"],
                    "correctAnswer": 1,
                    "questionId": "7.png-0",
                },
                "What eats grass?": {
                    "abcLabel": False,
                    "answerTexts": ["owl", "cow", "B"],
                    "correctAnswer": 1,
                    "questionId": "7.png-1",
                },
            },
        },
    )
    put_json(
        tmp_path / "ai2d/questions/9.png.json",
        {
            "imageName": "9.png",
            "questions": {
                "Q?": {
                    "abcLabel": False,
                    "answerTexts": ["x1", "y1"],
                    "correctAnswer": 0,
                    "questionId": "9.png-0",
                }
            },
        },
    )
    (tmp_path / "ai2d/ai2d_test_ids.csv").write_text("9\n")
    put_picture(tmp_path / "ai2d/abc_images/7.png", 30, 20)
    put_picture(tmp_path / "ai2d/images/7.png", 31, 21)
    put_picture(tmp_path / "ai2d/images/9.png", 31, 21)
    records, skipped = run("ai2d", tmp_path)
    assert skipped == {} and list(records) == ["ai2d-train-7.png-0", "ai2d-train-7.png-1"]
    label, cow = records.values()
    assert label.question.endswith("Choose one of: F, B, A, C.")
    assert (label.answer, label.choices, label.image_sizes) == ("B", None, ((30, 20),))
    # Option A has the text "owl", option C the text "B": the letter B alone would mean two things.
    assert (cow.answer, cow.image_sizes) == ("B. cow", ((31, 21),))
    assert list(run("ai2d", tmp_path, split="test")[0]) == ["ai2d-test-9.png-0"]


def test_ai2d_hub_answers_are_indices_as_text(tmp_path, run):
    image = {"bytes": picture_bytes(), "path": "0.png"}
    rows = [
        {"question": "what?", "options": ["red one", "blue one"], "answer": "1", "image": image},
        {"question": "what?", "options": ["red one", "blue one"], "answer": "blue", "image": image},
    ]
    put_hub(tmp_path / "test-00000-of-00001.parquet", rows)
    records, skipped = run("ai2d", tmp_path, split="test")
    assert [record.answer for record in records.values()] == ["B"]
    assert skipped == {"its answer is no index": 1}


def test_aokvqa_takes_the_right_choice_and_leaves_out_rows_without_one(tmp_path, run):
    row = {
        "image_id": 299207,
        "question_id": "22Mex",
        "question": "What awaits he?",
        "choices": ["skateboarder", "train", "delivery", "cab"],
        "correct_choice_idx": 3,
        "direct_answers": ["ride"] * 10,
    }
    hidden = {
        name: value for name, value in row.items() if name not in ("correct_choice_idx", "direct_answers")
    }
    put_json(tmp_path / "q/aokvqa_v1p0_train.json", [row, hidden | {"question_id": "hidden"}])
    put_picture(tmp_path / "coco/train2017/000000299207.jpg", 64, 48)
    records, skipped = run("aokvqa", tmp_path / "q", images=tmp_path / "coco")
    (record,) = records.values()
    assert record.id == "aokvqa-train-22Mex" and record.answer == "D" and record.choices[3] == "cab"
    assert record.image_sizes == ((64, 48),)
    assert skipped == {"has no right option": 1}


def test_geometry3k_prefers_plain_text_and_answers_by_letter(tmp_path, run):
    put_json(
        tmp_path / "train/12/data.json",
        {
            "problem_text": r"Find $x$ in $\triangle A B C$.",
            "compact_text": "Find x in triangle ABC.",
            "choices": ["2", "7 \\sqrt 2", "9", "11"],
            "compact_choices": ["2", "7\\sqrt{2}", "9", "11"],
            "answer": "B",
        },
    )
    put_picture(tmp_path / "train/12/img_diagram.png", 40, 30)
    (record,) = run("geometry3k", tmp_path)[0].values()
    assert record.question == "Find x in triangle ABC.\n(A) 2\n(B) 7\\sqrt{2}\n(C) 9\n(D) 11"
    assert (record.id, record.answer, record.reward_type) == ("geometry3k-train-12", "B", "matching")


def test_geometry3k_hub_form_is_math_and_loses_its_picture_mark(tmp_path, run):
    image = {"bytes": picture_bytes(12, 9), "path": None}
    rows = [{"images": [image], "problem": "<image>Find y.", "answer": "7\\sqrt{2}"}]
    put_hub(tmp_path / "data/train-00000-of-00001.parquet", rows)
    (record,) = run("geometry3k", tmp_path)[0].values()
    assert (record.question, record.answer, record.reward_type) == ("Find y.", "7\\sqrt{2}", "math")


def test_vsr_statements_become_yes_or_no_questions_and_bad_lines_are_named(tmp_path, run):
    link = "http://images.cocodataset.org/val2017/000000050403.jpg"
    row = {
        "image": "000000050403.jpg",
        "image_link": link,
        "caption": "The bear is in front of the person.",
        "label": 1,
        "relation": "in front of",
    }
    put_lines(tmp_path / "train.jsonl", row, row | {"label": 0}, row | {"label": None}, '{"image": "0000')
    put_picture(tmp_path / "val2017/000000050403.jpg", 10, 10)
    put_picture(tmp_path / "train2017/000000050403.jpg", 11, 11)
    records, skipped = run("vsr", tmp_path)
    assert [record.answer for record in records.values()] == ["yes", "no"]
    assert {record.image_sizes for record in records.values()} == {((10, 10),)}  # the link says which folder
    assert "The bear is in front of the person." in records["vsr-train-000000"].question
    assert skipped == {"its label is neither 0 nor 1": 1, "is not JSON": 1}


def test_figureqa_answers_zero_and_one(tmp_path, run):
    pairs = [
        {"question_string": "Is Red the minimum?", "answer": 0, "image_index": 3, "question_id": 1},
        {"question_string": "Is Red smooth?", "answer": 1, "image_index": 3, "question_id": 2},
        {"question_string": "Is Red smooth?", "answer": 1, "image_index": 4, "question_id": 2},
    ]
    put_json(tmp_path / "train1/qa_pairs.json", {"qa_pairs": pairs})
    put_picture(tmp_path / "train1/png/3.png")
    records, skipped = run("figureqa", tmp_path)
    assert [record.answer for record in records.values()] == ["no", "yes"]
    assert skipped == {"its picture is not there": 1}
